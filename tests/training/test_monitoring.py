"""What is due after a step, and the clock of the steps."""

from __future__ import annotations

import time

import pytest

from cdc_jax.training.monitoring import Due, StepClock, due_after
from tests.helpers.training import tiny_config

SETTINGS = {"train.steps": 100, "train.log_every": 10, "train.eval_every": 15, "train.checkpoint_every": 20}


@pytest.mark.parametrize(
    ("step", "interrupted", "due"),
    [
        (7, False, ""),
        (10, False, "log"),
        (15, False, "measure"),
        (20, False, "log measure save"),
        (30, False, "log measure"),
        (100, False, "log measure save"),
        (7, True, "save stop"),
        (15, True, "save stop"),
        (20, True, "log save stop"),
        (100, True, "log save"),
    ],
)
def test_what_is_due(step, interrupted, due):
    expected = Due(step, *(name in due.split() for name in ("log", "measure", "save", "stop")))
    config = tiny_config(**SETTINGS)
    assert due_after(config, step, has_validation=True, interrupted=interrupted) == expected
    without = due_after(config, step, has_validation=False, interrupted=interrupted)
    assert without == expected._replace(measure=False)


def test_the_last_step_is_logged_and_saved_whatever_the_intervals():
    config = tiny_config(**SETTINGS | {"train.steps": 101})
    assert due_after(config, 101, has_validation=True, interrupted=False) == Due(101, True, True, True, False)


def test_the_clock_counts_steps_and_the_wait_for_data(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def batches():
        while True:
            now[0] += 1  # the wait for data
            yield "batch"

    clock, source = StepClock(), batches()
    for _ in range(4):
        assert clock.next_batch(source) == "batch"
        now[0] += 3  # the step
    assert clock.read(batch_size=8) == {"step_seconds": 4.0, "images_per_second": 2.0, "data_wait_share": 0.25}
    now[0] += 50
    clock.restart()
    clock.next_batch(source)
    assert clock.read(batch_size=8)["step_seconds"] == 1.0
