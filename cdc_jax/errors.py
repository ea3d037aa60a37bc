"""The errors that a user can cause.

The command line prints the message of a `CdcError` in one line and exits with its `exit_code`. Any other exception is a
bug of ours and keeps its traceback. Messages are sentences: they begin with a capital letter or with the name of their
subject (a path, a setting, an option), and end with a period.
"""

from __future__ import annotations

import errno

_MOST_CAUSES = 10
_NO_MEMORY = (
    *("RESOURCE_EXHAUSTED", "std::bad_alloc", "Out of memory", "out of memory", "annot allocate memory"),
    *("failed to map segment", "can't start new thread"),
)


class CdcError(Exception):
    """The base class. The message states what is wrong and what to do about it."""

    exit_code = 1


class BitstreamError(CdcError):
    """A `.cdc` file is truncated, corrupt, not a `.cdc` file, or of an unknown format version."""


class ModelMismatchError(CdcError):
    """A valid `.cdc` file needs another entropy model than the bundle's."""

    exit_code = 3


class BundleError(CdcError):
    """A bundle is missing, incomplete or inconsistent."""


class ImageError(CdcError):
    """An image cannot be read, written or compressed: its format is unknown, or it is corrupt or too large."""


class CheckpointError(CdcError):
    """A checkpoint is missing or incomplete, or has another architecture."""


class ConfigError(CdcError):
    """A setting is unknown or has an invalid value."""

    exit_code = 2


class OutOfMemoryError(CdcError, MemoryError):
    """There is not enough memory; the message says for what, and what to do."""

    @classmethod
    def during(cls, what: str) -> OutOfMemoryError:
        """The error when memory ran out for an unknown reason. `what` is the task, such as "read FILE"."""
        return cls(f"There is not enough memory to {what}: raise the limit (ulimit -v), or free some.")


class Interrupted(CdcError):
    """A training run was asked to stop, and has saved its state."""

    exit_code = 143


def reason_of(error: BaseException) -> str:
    """An error's message, for use at the end of another message: its first line, without the final period."""
    text = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
    return text.removesuffix(".")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one of its causes, is an out-of-memory error of Python, XLA or the linker."""
    for _ in range(_MOST_CAUSES):
        text = str(error)
        no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
        if isinstance(error, MemoryError) or no_memory or any(words in text for words in _NO_MEMORY):
            return True
        cause = error.__cause__ or error.__context__
        if cause is None:
            return False
        error = cause
    return False
