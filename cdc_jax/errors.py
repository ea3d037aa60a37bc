"""Every error that a user can cause, as one small family.

The command line prints the message of a `CdcError` as one line and exits with its `exit_code`;
anything else that escapes is a bug of ours and keeps its traceback. Messages are sentences: they begin with a capital
or with the name of what they are about (a path, a setting, an option), and end with a full stop.
"""


class CdcError(Exception):
    """Base class: the message says what is wrong and what to do about it."""

    exit_code = 1


class BitstreamError(CdcError):
    """A `.cdc` file is truncated, corrupt, foreign, or of an unknown format version."""


class ModelMismatchError(CdcError):
    """A valid `.cdc` file was written with another entropy model than the bundle's."""

    exit_code = 3


class BundleError(CdcError):
    """A bundle directory is missing, incomplete or inconsistent."""


class ImageError(CdcError):
    """An image cannot be read, written or coded: unknown format, corrupt, too large."""


class CheckpointError(CdcError):
    """A checkpoint is missing, incomplete, or of another architecture."""


class ConfigError(CdcError):
    """A configuration names an unknown key or holds an invalid value."""

    exit_code = 2


class Interrupted(CdcError):
    """A run was asked to stop, and has saved its state."""

    exit_code = 143


def reason_of(error: BaseException) -> str:
    """What an error says, as the end of another message: its first line, without the full stop."""
    text = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
    return text.removesuffix(".")
