"""Reads untrusted files: only regular files, and only up to the size that their kind needs.

A folder from a hub or an archive may contain a pipe that blocks forever, a link to an endless device, or a file of any
size under any name.
"""

from __future__ import annotations

import errno
import os
import stat


def regular_size(path: str | os.PathLike[str]) -> int:
    """The size in bytes of a regular file. Follows links.

    Raises:
      OSError: the file is missing, or it is a folder, a device or a pipe.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "It is not a regular file", os.fspath(path))
    return status.st_size


def read_limited(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The contents of a regular file.

    Raises:
      OSError: the file cannot be read, is not a regular file, or has more than `max_bytes`.
    """
    if regular_size(path) <= max_bytes:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) <= max_bytes:
            return data
    raise OSError(errno.EFBIG, f"It has more than the {max_bytes} bytes that such a file needs", os.fspath(path))
