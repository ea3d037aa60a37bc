"""Corrupt and small images are skipped, counted and named, and never skipped for ever."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from cdc_jax.data.pipeline import open_batches
from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.training.config import default_config
from cdc_jax.training.config_checks import check_config
from tests.data.conftest import corrupt_images, save_image


def run(config, steps):
    """(images and names of all batches, counters)."""
    with open_batches(config, process_index=0, process_count=1, first_step=0) as batches:
        read = [next(batches) for _ in range(steps)]
        counters = batches.counters()
    return np.concatenate([batch.images for batch in read]), [name for b in read for name in b.names], counters


def test_corrupt_images_are_skipped_counted_and_named_once(folder, data_config, caplog):
    corrupt = corrupt_images(folder)
    with caplog.at_level(logging.WARNING, "cdc_jax.data"):
        images, names, counters = run(data_config(max_corrupt_fraction=0.25), 18)
    assert not set(names) & set(corrupt)
    assert [int(name[0]) for name in names] == images[:, 0, 0, 0].tolist()
    # 72 positions are 6 epochs of 12. Each corrupt image is read in every epoch, and again if it follows another one.
    assert counters["corrupt"] >= 18 and counters["read"] == 72 + counters["corrupt"]
    for name in corrupt:
        assert sum(name in message for message in caplog.messages) == 1


def test_corrupt_records_of_other_processes_and_earlier_runs_count(folder, data_config):
    """Two processes read different records: the fraction counts those of both, and a restart forgets none."""
    corrupt = corrupt_images(folder)
    config = data_config(max_corrupt_fraction=(len(corrupt) - 0.5) / 12)
    known = []
    for process in (0, 1):
        with open_batches(config, process_index=process, process_count=2, first_step=0) as batches:
            next(batches)
            known.append(batches.state()["corrupt"])
            with pytest.raises(CdcError, match="images are corrupt"):
                batches.note_corrupt(range(12))
    with open_batches(config, process_index=0, process_count=2, first_step=0) as batches:
        batches.note_corrupt(known[1])
        assert set(batches.state()["corrupt"]) >= set(known[1])
        state = {**batches.state(), "corrupt": [1, 5]}
    with open_batches(config, process_index=1, process_count=2, first_step=0, state=state) as batches:
        assert set(batches.state()["corrupt"]) >= {1, 5}


def test_a_corrupt_record_is_replaced_by_the_next_of_the_order(folder, data_config):
    from cdc_jax.data.sharding import GlobalOrder

    corrupt_images(folder)
    listed = sorted(path.name for path in folder.iterdir())
    _, names, _ = run(data_config(max_corrupt_fraction=0.5), 6)
    order = GlobalOrder(len(listed), seed=3)
    for position, name in enumerate(names):
        following = (listed[order[later]] for later in range(position, position + 24))
        assert name == next(other for other in following if not other.startswith("b_"))


def test_too_many_corrupt_images_end_the_run_and_are_named(folder, data_config):
    corrupt = corrupt_images(folder)
    with pytest.raises(CdcError, match=r"More than 1\.00% of the 12 .+max_corrupt_fraction") as caught:
        run(data_config(), 6)
    assert any(name in str(caught.value) for name in corrupt)
    with pytest.raises(CdcError, match="More than 20.00%") as caught:  # 2 of 12 are allowed, 3 are not
        run(data_config(max_corrupt_fraction=0.2), 12)
    assert all(name in str(caught.value) for name in corrupt)


def test_one_percent_is_not_too_many(tmp_path, data_config):
    for number in range(99):
        save_image(tmp_path / "hundred" / f"{number:02}.png", number, 64, 64)
    (tmp_path / "hundred" / "corrupt.png").write_bytes(b"")
    _, names, counters = run(data_config(path=str(tmp_path / "hundred"), batch_size=20), 12)
    assert counters["corrupt"] >= 2 and "corrupt.png" not in names
    (tmp_path / "hundred" / "98.png").write_bytes(b"")
    with pytest.raises(CdcError, match=r"corrupt\.png|98\.png"):
        run(data_config(path=str(tmp_path / "hundred"), batch_size=20), 6)


def test_small_images_are_skipped(folder, data_config, caplog):
    save_image(folder / "small.png", 100, 63, 200)
    with caplog.at_level(logging.WARNING, "cdc_jax.data"):
        _, names, counters = run(data_config(), 10)
    assert "small.png" not in names and len(names) == 40
    assert counters == {"read": 40 + counters["small"], "corrupt": 0, "small": counters["small"], "upscaled": 0}
    assert counters["small"] >= 4
    assert sum("small.png" in message and "skipped" in message for message in caplog.messages) == 1


def test_small_images_are_scaled_up(folder, data_config, caplog):
    save_image(folder / "small.png", 100, 32, 50)
    with caplog.at_level(logging.WARNING, "cdc_jax.data"):
        images, names, counters = run(data_config(small_images="upscale", flip=False), 10)
    chosen = np.array([name == "small.png" for name in names])
    assert counters == {"read": 40, "corrupt": 0, "small": 0, "upscaled": int(chosen.sum())} and chosen.sum() == 4
    assert (images[chosen][..., 0] == 100).all()
    green = images[chosen][:, :, 10, 1].astype(int)
    assert (green[:, 0] <= 1).all() and (green[:, -1] >= 30).all()  # all 32 rows, scaled up by 2
    assert sum("small.png" in message and "scaled up" in message for message in caplog.messages) == 1


def test_the_log_does_not_name_thousands_of_small_images(tmp_path, data_config, caplog):
    for number in range(30):
        save_image(tmp_path / "many" / f"{number}.png", number, 20, 20)
    with caplog.at_level(logging.WARNING, "cdc_jax.data"):
        _, _, counters = run(data_config(path=str(tmp_path / "many"), small_images="upscale"), 10)
    assert counters["upscaled"] == 40
    assert len(caplog.messages) == 10 and "counted, not named" in caplog.messages[-1]


def test_nothing_usable_is_an_error_not_a_loop(tmp_path, data_config):
    for number in range(3):
        save_image(tmp_path / "small" / f"{number}.png", number, 20, 20)
    with pytest.raises(CdcError, match=r"6 records in a row .+ 6 smaller than data\.crop \(64\).+upscale"):
        run(data_config(path=str(tmp_path / "small")), 1)
    for number in range(3):
        (tmp_path / "small" / f"{number}.png").write_bytes(b"nothing")
    with pytest.raises(CdcError, match="6 records in a row .+ 6 are corrupt"):
        run(data_config(path=str(tmp_path / "small"), max_corrupt_fraction=1.0), 1)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"source": "imagenet"}, "data.source"),
        ({"small_images": "stretch"}, "data.small_images"),
        ({"max_corrupt_fraction": 1.5}, "data.max_corrupt_fraction"),
        ({"workers": -1}, "data.workers"),
    ],
)
def test_invalid_settings(changes, word):
    config = default_config()
    config.data.update(changes)
    with pytest.raises(ConfigError, match=word):
        check_config(config)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_invalid_seeds(seed):
    config = default_config()
    config.seed = seed
    with pytest.raises(ConfigError, match="seed"):
        check_config(config)
