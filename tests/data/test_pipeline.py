"""Batches are the same for any number of processes and workers, and after any restart."""

from __future__ import annotations

import json
import sys
import threading

import numpy as np
import pytest

from cdc_jax.data.pipeline import open_batches
from cdc_jax.errors import CdcError, CheckpointError, ConfigError
from tests.data.conftest import corrupt_images, save_image


def read(config, steps, *, process_count=1, first_step=0, state=None):
    """(images, names) of global batches, put together from all processes' rows."""
    parts = []
    for process_index in range(process_count):
        with open_batches(
            config,
            process_index=process_index,
            process_count=process_count,
            first_step=first_step,
            state=state,
        ) as batches:
            parts.append([next(batches) for _ in range(steps)])
    assert all(batch.step == first_step + i for part in parts for i, batch in enumerate(part))
    return [
        (np.concatenate([batch.images for batch in rows]), [name for batch in rows for name in batch.names])
        for rows in zip(*parts, strict=True)
    ]


def assert_same(first, second):
    assert len(first) == len(second)
    for (images, names), (other_images, other_names) in zip(first, second, strict=True):
        assert names == other_names
        np.testing.assert_array_equal(images, other_images)


@pytest.fixture
def mixed_config(folder, data_config):
    """A configuration with nine valid images, three corrupt ones, and two that are too small."""
    corrupt_images(folder)
    save_image(folder / "small.png", 100, 63, 200)
    save_image(folder / "tiny.png", 101, 10, 10)
    return data_config(max_corrupt_fraction=0.5)


@pytest.mark.parametrize("process_count", [2, 4])
def test_global_batches_are_the_same_for_any_number_of_processes(mixed_config, process_count):
    alone = read(mixed_config, 8)
    assert alone[0][0].shape == (4, 64, 64, 3)
    assert_same(alone, read(mixed_config, 8, process_count=process_count))


def test_a_restart_with_other_images_is_refused(folder, data_config):
    def restart(state):
        open_batches(data_config(), process_index=0, process_count=1, first_step=0, state=state).close()

    with open_batches(data_config(), process_index=0, process_count=1, first_step=0) as batches:
        state = json.loads(json.dumps(batches.state()))
    restart(state)
    (folder / "8.png").rename(folder / "9.png")
    with pytest.raises(CheckpointError, match=r"9 training images as before.+names.+init_from"):
        restart(state)
    save_image(folder / "8.png", 8)
    with pytest.raises(CheckpointError, match=r"trained on 9 images, and now there are 10.+data\.path"):
        restart(state)
    (folder / "9.png").unlink()
    restart(state)


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_a_restart_resumes_at_the_same_step_on_any_number_of_processes(mixed_config, process_count):
    whole = read(mixed_config, 7)
    with open_batches(mixed_config, process_index=0, process_count=1, first_step=0) as batches:
        for _ in range(3):
            next(batches)
        state = json.loads(json.dumps(batches.state()))
    assert state["next_step"] == 3
    assert_same(whole[3:], read(mixed_config, 4, process_count=process_count, first_step=3, state=state))


def test_counters_count_returned_batches_and_survive_a_restart(mixed_config):
    def run(first_step, steps, state):
        with open_batches(mixed_config, process_index=0, process_count=1, first_step=first_step, state=state) as it:
            for _ in range(steps):
                next(it)
            return it.state()

    whole = run(0, 7, None)
    assert run(3, 4, json.loads(json.dumps(run(0, 3, None)))) == whole
    counters = whole["counters"]
    assert counters["read"] == 28 + counters["corrupt"] + counters["small"]
    assert counters["corrupt"] > 0 and counters["small"] > 0 and counters["upscaled"] == 0
    assert run(0, 0, None)["counters"]["read"] == 0


def test_counters_of_all_processes_add_up_after_a_restart(data_config):
    state = {"next_step": 5, "counters": {"read": 20, "corrupt": 1}}
    total = 0
    for process_index in range(2):
        with open_batches(
            data_config(), process_index=process_index, process_count=2, first_step=5, state=state
        ) as batches:
            next(batches)
            total += batches.counters()["read"]
    assert total == 24


def test_worker_processes_read_the_same(mixed_config):
    threads = read(mixed_config, 5, first_step=2)
    mixed_config.data.workers = 2
    assert_same(threads, read(mixed_config, 5, first_step=2))


def test_epochs_cover_every_record_once(data_config):
    names = [name for _, batch in read(data_config(), 9) for name in batch]
    epochs = [names[start : start + 9] for start in range(0, 36, 9)]
    assert all(sorted(epoch) == [f"{number}.png" for number in range(9)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_seeds_change_order_and_crops(data_config):
    first, second = read(data_config(seed=0), 3), read(data_config(seed=1), 3)
    assert [names for _, names in first] != [names for _, names in second]


def test_the_largest_seed(data_config):
    read(data_config(seed=2**32 - 1), 4)


def test_closing_ends_background_threads(data_config):
    batches = open_batches(data_config(), process_index=0, process_count=1, first_step=0)
    next(batches)
    assert any(thread.name.startswith("grain-prefetch") for thread in threading.enumerate())  # prefetching
    batches.close()
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_mistakes(data_config, monkeypatch):
    with pytest.raises(ConfigError, match="4, which 3 processes"):
        open_batches(data_config(), process_index=0, process_count=3, first_step=0)
    with pytest.raises(CheckpointError, match="step 5.+step 4"):
        open_batches(data_config(), process_index=0, process_count=1, first_step=4, state={"next_step": 5})
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(CdcError, match=r"pip install '\.\[train\]'"):
        open_batches(data_config(), process_index=0, process_count=1, first_step=0)
