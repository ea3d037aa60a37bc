"""Stops a run between two steps, on SIGTERM or a preemption notice."""

from __future__ import annotations

import signal

import jax
from jax.experimental import multihost_utils


class Interruption:
    """Within a `with` block, SIGTERM does not end the process; `requested` reports it instead.

    All processes of a run must stop after the same step; JAX's preemption service makes them agree on it.
    """

    def __init__(self):
        self._received, self._calls = False, 0

    def __enter__(self) -> Interruption:
        self._previous = None
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def _receive(self, *_) -> None:
        self._received = True

    def requested(self) -> bool:
        """Whether to stop now; all processes of a run get the same answer to the same call."""
        self._calls += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._calls)  # agrees on one of the next calls
        return self._received

    def __exit__(self, *_) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
