"""Monitoring of the training loop: what is due after a step, how long steps take, whether metrics are finite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import ml_collections
import numpy as np
from jaxtyping import Array, Float

from cdc_jax.errors import CdcError
from cdc_jax.training.metrics_writer import RunLog
from cdc_jax.training.profiling import TRACED_STEPS

Batch = TypeVar("Batch")
_NAMES_SHOWN = 8  # the most images that a message names


class Due(NamedTuple):
    """What the loop does after a step.

    Attributes:
      step: the number of completed steps.
      log: log the step's metrics.
      measure: measure the validation images.
      save: save a checkpoint.
      stop: end the run before its last step.
    """

    step: int
    log: bool
    measure: bool
    save: bool
    stop: bool


def due_after(config: ml_collections.ConfigDict, step: int, *, has_validation: bool, interrupted: bool) -> Due:
    """What is due when `step` steps are completed. An interrupted run saves at once, without measuring."""
    options, last = config.train, step == config.train.steps
    save = step % options.checkpoint_every == 0 or last or interrupted
    return Due(
        step,
        log=step % options.log_every == 0 or last,
        measure=has_validation and not interrupted and (save or step % options.eval_every == 0),
        save=save,
        stop=interrupted and not last,
    )


def steps_at_once(config: ml_collections.ConfigDict, step: int) -> int:
    """How many steps the program that starts with step `step`, counted from 0, runs.

    They are `train.steps_per_call` if that divides `step` and nothing happens between them: no log, measurement or
    checkpoint is due, LPIPS does not start to count, the run does not end, and no trace is written. Otherwise 1. This
    depends on nothing else, so that a resumed run calls the same programs.
    """
    options, count = config.train, config.train.steps_per_call
    every = (options.log_every, options.eval_every, options.checkpoint_every)
    due = any(later % each == 0 for later in range(step + 1, step + count) for each in every)
    changes = step < config.loss.rho_start_step < step + count
    traced = options.profile_step and step < options.profile_step + TRACED_STEPS and options.profile_step < step + count
    return 1 if step % count or step + count > options.steps or due or changes or traced else count


class StepMonitor:
    """Keeps the loop at most one call ahead of the devices, and checks that metrics are finite.

    Args:
      log: the run's log. It stores lists of image names that are too long for a message.
      latest_checkpoint: returns the step of the newest checkpoint, None if there is none.
    """

    def __init__(self, log: RunLog, latest_checkpoint: Callable[[], int | None]):
        self._log, self._latest_checkpoint = log, latest_checkpoint
        self._step, self._metrics, self._names = 0, {}, ()

    def add(self, step: int, metrics: Mapping[str, Float[Array, "..."]], names: Sequence[Sequence[str]]) -> None:
        """Waits for the previous steps, then registers those of one call.

        Args:
          step: the number of completed steps, these included.
          metrics: the metrics of one step, or arrays with a value per step; the devices may still be computing them.
          names: for each step, the names of the images that this process contributed.

        Raises:
          CdcError: see `wait`.
        """
        self.wait()
        self._step, self._metrics, self._names = step, metrics, names

    def wait(self) -> dict[str, float]:
        """Waits for the latest steps and returns the last one's metrics.

        Raises:
          CdcError: a metric is not finite; the message names the step and this process's images.
        """
        values = {name: np.atleast_1d(value) for name, value in jax.device_get(dict(self._metrics)).items()}
        for index, names in enumerate(self._names):
            step = self._step - len(self._names) + index + 1
            self._check({name: float(value[index]) for name, value in values.items()}, step, names)
        return {name: float(value[-1]) for name, value in values.items()}

    def _check(self, values: Mapping[str, float], step: int, images: Sequence[str]) -> None:
        not_finite = [name for name, value in values.items() if not np.isfinite(value)]
        if not_finite:
            latest = self._latest_checkpoint()
            kept = "no checkpoint was saved yet" if latest is None else f"the checkpoint of step {latest} is kept"
            raise CdcError(
                f"{not_finite[0]} is {values[not_finite[0]]} at step {step}, trained on {self._shown(step, images)}; "
                f"{kept}: start again with a lower optimizer.learning_rate, or without these images."
            )

    def _shown(self, step: int, images: Sequence[str]) -> str:
        names = list(dict.fromkeys(images))
        shown, more = ", ".join(names[:_NAMES_SHOWN]), len(names) - _NAMES_SHOWN
        if more <= 0:
            return shown
        file = self._log.add_text(f"batch_of_step_{step}_{jax.process_index()}", names)
        return f"{shown} and {more} more, listed in {file}"


class StepClock:
    """Measures the mean time per step, and the share of it that is spent waiting for data."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Starts counting time and steps from zero."""
        self._start, self._waited_seconds, self._steps = time.perf_counter(), 0.0, 0

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """Returns the next batch and counts one step. The time until the batch is there counts as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited_seconds += time.perf_counter() - start
        self._steps += 1
        return batch

    def read(self, batch_size: int) -> dict[str, float]:
        """Timing metrics of the steps since the last `read` or `restart`, at least one. Restarts the clock.

        Args:
          batch_size: images per step, over all processes.

        Returns:
          `step_seconds`, `images_per_second`, and `data_wait_share` in [0, 1].
        """
        seconds = time.perf_counter() - self._start
        values = {
            "step_seconds": seconds / self._steps,
            "images_per_second": batch_size * self._steps / seconds,
            "data_wait_share": self._waited_seconds / seconds,
        }
        self.restart()
        return values
