"""Reading what others made: regular files only, and no more of them than their kind needs.

A folder from a hub or an archive may hold a pipe, which would be waited for for ever, a link to an endless device, or
a file of any size under any name.
"""

from __future__ import annotations

import errno
import os
import stat


def regular_size(path: str | os.PathLike[str]) -> int:
    """The bytes of a regular file, or of the one that a link leads to.

    Raises:
      OSError: there is none, or it is a folder, a device or a pipe.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "It is not a regular file", os.fspath(path))
    return status.st_size


def read_limited(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """All of a regular file.

    Raises:
      OSError: it cannot be read, is no regular file, or has more than `most_bytes`.
    """
    if regular_size(path) <= most_bytes:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
        if len(data) <= most_bytes:
            return data
    raise OSError(errno.EFBIG, f"It has more than the {most_bytes} bytes that such a file needs", os.fspath(path))
