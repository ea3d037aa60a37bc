"""Finds the process that holds libtpu's lock, which compiling must not take."""

import fcntl
import os
import struct

LOCK_FILE = "/tmp/libtpu_lockfile"  # fixed in libtpu: it ignores TMPDIR


def lock_holder(path: str) -> int | None:
    """Process id of the holder of a POSIX record lock; None if no other process holds it."""
    layout = "hhqqi"  # struct flock: type, whence, start, length, pid
    question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with open(path, "rb+") as file:
            kind, _, _, _, pid = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, question))
    except OSError:
        return None
    return None if kind == fcntl.F_UNLCK else pid
