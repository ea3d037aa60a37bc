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


class StepMonitor:
    """Keeps the loop at most one step ahead of the devices, and checks that metrics are finite.

    Args:
      log: the run's log. It stores lists of image names that are too long for a message.
      latest_checkpoint: returns the step of the newest checkpoint, None if there is none.
    """

    def __init__(self, log: RunLog, latest_checkpoint: Callable[[], int | None]):
        self._log, self._latest_checkpoint = log, latest_checkpoint
        self._step, self._metrics, self._names = 0, {}, ()

    def add(self, step: int, metrics: Mapping[str, Float[Array, ""]], names: Sequence[str]) -> None:
        """Waits for the previous step, then registers this one.

        Args:
          step: the number of completed steps, this one included.
          metrics: the step's metrics, which the devices may still be computing.
          names: the names of the images that this process contributed.

        Raises:
          CdcError: see `wait`.
        """
        self.wait()
        self._step, self._metrics, self._names = step, metrics, names

    def wait(self) -> dict[str, float]:
        """Waits for the latest step and returns its metrics.

        Raises:
          CdcError: a metric is not finite; the message names the step and this process's images.
        """
        values = {name: float(value) for name, value in jax.device_get(dict(self._metrics)).items()}
        not_finite = [name for name, value in values.items() if not np.isfinite(value)]
        if not_finite:
            latest = self._latest_checkpoint()
            kept = "no checkpoint was saved yet" if latest is None else f"the checkpoint of step {latest} is kept"
            raise CdcError(
                f"{not_finite[0]} is {values[not_finite[0]]} at step {self._step}, trained on {self._images()}; "
                f"{kept}: start again with a lower optimizer.learning_rate, or without these images."
            )
        return values

    def _images(self) -> str:
        names = list(dict.fromkeys(self._names))
        shown, more = ", ".join(names[:_NAMES_SHOWN]), len(names) - _NAMES_SHOWN
        if more <= 0:
            return shown
        file = self._log.add_text(f"batch_of_step_{self._step}_{jax.process_index()}", names)
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
