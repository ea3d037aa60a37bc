"""Locks a folder for one process, since two would corrupt each other's results.

The operating system holds the lock, so it is released when the process ends, however it ends. The file `.lock` stays in
the folder; its presence alone means nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cdc_jax.errors import CdcError
from cdc_jax.io.files import is_remote


@contextlib.contextmanager
def exclusive(folder: str | os.PathLike[str], user: str) -> Iterator[None]:
    """Locks an existing folder for a `with` block. Does nothing in object stores and on file systems without locks.

    Args:
      folder: the folder.
      user: who uses it, for the error message, such as "that training run".

    Raises:
      CdcError: another process has locked it.
    """
    if is_remote(folder):
        yield
        return
    import filelock

    lock = filelock.FileLock(Path(folder) / ".lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock.acquire(timeout=0))
        except filelock.Timeout:
            raise CdcError(
                f"{os.fspath(folder)} is in use by another process: wait for {user} to end, or name another folder."
            ) from None
        except (OSError, NotImplementedError):  # if the folder is not writable, the first write reports it
            pass
        yield
