"""Reading inputs and writing outputs: files, `-`, and checks of outputs before any work."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO

from cdc_jax.errors import CdcError
from cdc_jax.io.files import write_atomically

STANDARD = "-"


class UsageError(CdcError):
    """The command line asks for something impossible. Nothing has been read or written."""

    exit_code = 2


def is_device(path: str) -> bool:
    """Whether `path` exists but is neither a file nor a folder, such as `/dev/null` or a pipe."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_folder(folder: str) -> None:
    """Checks that files may be written into a folder, or that it may be created.

    Raises:
      CdcError: a file is in its place; or the folder, or the one to create it in, is not writable.
    """
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise CdcError(f"{folder}: Cannot be created, since {place} is a file.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise CdcError(f"{folder}: The folder {place} cannot be written to.")


def check_target(target: str, *, force: bool, makes_folders: bool) -> None:
    """Checks that an output may be written, before its contents are computed.

    Raises:
      CdcError: the file exists already (unless `force`), or is a folder; or its folder is missing (unless
        `makes_folders`) or cannot be written to.
    """
    if target == STANDARD or is_device(target):
        return
    if os.path.isdir(target):
        raise CdcError(f"{target}: This is a folder, so the output cannot be written there.")
    if os.path.exists(target) and not force:
        raise CdcError(_exists(target))
    folder = os.path.dirname(os.path.realpath(target))
    if not makes_folders and not os.path.isdir(folder):
        raise CdcError(f"{target}: There is no folder {folder} to write to.")
    if os.path.isdir(folder) and not os.access(folder, os.W_OK):
        raise CdcError(f"{target}: The folder {folder} cannot be written to.")


def _exists(target: str) -> str:
    return f"{target}: The file exists and was kept; --force replaces it."


def read_source(source: str, *, magic: bytes = b"") -> bytes:
    """Reads a file, or standard input for `-`. If it does not begin with `magic`, reads no more than those bytes.

    Raises:
      CdcError: the source is a folder, or standard input is closed.
      OSError: the source cannot be read.
    """
    if os.path.isdir(source):
        raise CdcError(f"{source}: This is a folder, not a file.")
    with contextlib.nullcontext(standard_stream("stdin")) if source == STANDARD else open(source, "rb") as file:
        head = file.read(len(magic))
        return head + file.read() if head == magic else head


def write_target(target: str, data: bytes, *, force: bool, makes_folders: bool) -> None:
    """Writes a file, completely or not at all, or standard output for `-`.

    Raises:
      CdcError: standard output is closed; or the file exists, perhaps since `check_target` (unless `force`).
      OSError: the target cannot be written.
    """
    if target == STANDARD:
        stream = standard_stream("stdout")
        with standard_output_errors():
            stream.write(data)
            stream.flush()
        return
    if makes_folders:
        os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        write_atomically(target, data, replace=force)
    except FileExistsError:
        raise CdcError(_exists(target)) from None


def standard_stream(name: str) -> BinaryIO:
    """The binary stream of `sys.stdin` or `sys.stdout`, by its name in `sys`."""
    stream = getattr(sys, name)
    if stream is None:  # closed by the caller (cdc … >&-)
        raise CdcError(f"Standard {'input' if name == 'stdin' else 'output'} is closed.")
    return stream.buffer


@contextlib.contextmanager
def standard_output_errors() -> Iterator[None]:
    """Adds the name "standard output" to an OSError, and keeps Python from raising it again when it exits."""
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        with contextlib.suppress(OSError, ValueError):  # in tests, standard output has no file descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        raise
