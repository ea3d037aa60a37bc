"""A profiler trace of a few training steps, for TensorBoard's profile page or Perfetto."""

from __future__ import annotations

from pathlib import Path

import jax

TRACED_STEPS = 3


class StepTrace:
    """Traces three steps, or fewer at the end of the run. Use it as a context manager.

    Args:
      folder: the local folder for the trace.
      first: the first traced step; 0 traces nothing.
    """

    def __init__(self, folder: Path, first: int):
        self._folder, self._first = folder, first
        self._running = False

    def before(self, step: int) -> None:
        """Starts or ends the trace when due. Call it before each step, counted from 0."""
        if self._running and step == self._first + TRACED_STEPS:
            self._stop()
        elif self._first and step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def __enter__(self) -> StepTrace:
        return self

    def __exit__(self, *_) -> None:
        if self._running:
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False
