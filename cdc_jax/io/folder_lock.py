"""One process at a time in a folder, where two would spoil each other's results.

The lock is the operating system's: it ends with its process, however that ends. The file `.lock` stays and means
nothing by itself.
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
    """Keeps other processes out of a folder that exists, for a `with` block.

    An object store, or a file system without locks, lets everybody in.

    Args:
      folder: the folder.
      user: who uses it, for the message: "a training run".

    Raises:
      CdcError: another process is in it.
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
        except (OSError, NotImplementedError):  # what cannot be written to shows where it is written to
            pass
        yield
