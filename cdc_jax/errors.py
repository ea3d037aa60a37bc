"""The errors that a user can cause.

The command line prints the message of a `CdcError` in one line and exits with its `exit_code`. Any other exception is a
bug of ours and keeps its traceback. Messages are sentences: they begin with a capital letter or with the name of their
subject (a path, a setting, an option), and end with a full stop.
"""


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
    """An image cannot be read, written or compressed: unknown format, corrupt, too large."""


class CheckpointError(CdcError):
    """A checkpoint is missing, incomplete, or of another architecture."""


class ConfigError(CdcError):
    """A setting is unknown or has an invalid value."""

    exit_code = 2


class Interrupted(CdcError):
    """A training run was asked to stop, and has saved its state."""

    exit_code = 143


def reason_of(error: BaseException) -> str:
    """An error's message for the end of another message: its first line, without the full stop."""
    text = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
    return text.removesuffix(".")
