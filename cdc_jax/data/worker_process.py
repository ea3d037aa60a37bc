"""Lifetime of Grain's worker processes: they end with the trainer, neither before it nor after it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from cdc_jax.errors import CdcError

_DEATH = "Worker process was terminated unexpectedly"  # Grain's message, in a RuntimeError


def stay_with_trainer(index: int, count: int) -> None:
    """Sets up worker `index` of `count`, for Grain's `worker_init_fn`.

    Signals that stop a run are sent to all of its processes. The trainer still needs batches to finish its step and
    then ends the workers, so they ignore these signals. If the trainer is killed, they notice it and exit.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_trainer, name="leave-with-trainer", daemon=True).start()


def _leave_with_trainer() -> None:
    multiprocessing.parent_process().join()  # returns at once if the trainer has already ended
    os._exit(1)


def check_death(error: RuntimeError) -> None:
    """Raises CdcError if an error of Grain's reports that a worker died."""
    _, died, how = str(error).partition(_DEATH)
    if died:
        raise CdcError(
            f"A process that reads training images was ended{how.partition('.')[0]} (-9: often for lack of memory): "
            "start the same command again, if needed with fewer data.workers; it resumes from the last checkpoint."
        ) from error
