"""What is due after a step, how many steps a program runs, and the clock of the steps."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cdc_jax.errors import CdcError
from cdc_jax.training.metrics_writer import RunLog
from cdc_jax.training.monitoring import Due, StepClock, StepMonitor, due_after, steps_at_once
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


def calls(**changes) -> list[int]:
    """The number of steps of each call in a run of 100 steps."""
    config, step, counts = tiny_config(**SETTINGS | {"train.steps_per_call": 4} | changes), 0, []
    while step < config.train.steps:
        counts.append(steps_at_once(config, step))
        step += counts[-1]
    assert step == config.train.steps
    return counts


EVERY_HUNDRED = {"train.log_every": 100, "train.eval_every": 100, "train.checkpoint_every": 100}


@pytest.mark.parametrize(
    ("changes", "single"),
    [
        ({}, ()),
        ({"train.log_every": 10}, (8, 28, 48, 68, 88)),  # 20 is a multiple of 4
        ({"train.eval_every": 50}, (48,)),
        ({"train.checkpoint_every": 50}, (48,)),
        ({"train.steps": 102}, (100,)),
        ({"loss.rho_start_step": 6}, (4,)),
        ({"loss.rho_start_step": 8}, ()),
        ({"train.profile_step": 6}, (4, 8)),  # steps 6, 7 and 8
    ],
)
def test_steps_share_a_program_unless_something_happens_between_them(changes, single):
    """`single` has the first steps of the groups of four that run one by one."""
    expected = [
        count for step in range(0, 100, 4) for count in ([1] * 4 if step in single else [4])
    ] + [1] * (changes.get("train.steps", 100) - 100)  # fmt: skip
    assert calls(**EVERY_HUNDRED | changes) == expected


def test_a_run_that_resumes_between_two_groups_starts_with_single_steps():
    config = tiny_config(**SETTINGS | EVERY_HUNDRED | {"train.steps_per_call": 4})
    assert [steps_at_once(config, step) for step in (4, 5, 6, 7, 8)] == [4, 1, 1, 1, 4]
    assert set(calls(**{"train.steps_per_call": 1})) == {1}


def test_metrics_of_several_steps(tmp_path):
    """The last step's are returned; the message names the first step that is not finite, and its images."""
    monitor = StepMonitor(RunLog(tmp_path), lambda: None)
    monitor.add(3, {"loss": np.array([1.0, 2.0, 3.0])}, [["a"], ["b"], ["c"]])
    assert monitor.wait() == {"loss": 3.0}
    monitor.add(6, {"loss": np.array([1.0, np.nan, np.inf])}, [["a"], ["b"], ["c"]])
    with pytest.raises(CdcError, match="loss is nan at step 5, trained on b;"):
        monitor.wait()


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
