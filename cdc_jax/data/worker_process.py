"""Grain's worker processes: they live exactly as long as the trainer does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from cdc_jax.errors import CdcError

_DEATH = "Worker process was terminated unexpectedly"  # how Grain reports it, in a RuntimeError


def stay_with_trainer(index: int, count: int) -> None:
    """The first thing that worker `index` of `count` does.

    Signals that stop a run go to all of its processes. The trainer then still needs batches to finish its step, and
    ends the workers itself; where it cannot, being killed, they see that it is gone.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_trainer, name="leave-with-trainer", daemon=True).start()


def _leave_with_trainer() -> None:
    multiprocessing.parent_process().join()  # returns at once where the trainer is gone already
    os._exit(1)


def check_death(error: RuntimeError) -> None:
    """Raises CdcError where an error of Grain's reports that a worker died."""
    _, died, how = str(error).partition(_DEATH)
    if died:
        raise CdcError(
            f"A process that reads training images was ended{how.partition('.')[0]} (-9: often for lack of memory): "
            "start the same command again, with fewer data.workers if need be; it resumes from the last checkpoint."
        ) from error
