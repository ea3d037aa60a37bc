"""Every error that a user can cause, as one small family.

The command line prints the message of a `CdcError` as one line and exits with its `exit_code`;
anything else that escapes is a bug of ours and keeps its traceback.
"""


class CdcError(Exception):
    """Base class: the message says what is wrong and what to do about it."""

    exit_code = 1


class BitstreamError(CdcError):
    """A `.cdc` file is truncated, damaged, foreign, or of an unknown format version."""


class ModelMismatchError(CdcError):
    """A sound `.cdc` file was written with another entropy model than the bundle's."""

    exit_code = 3


class BundleError(CdcError):
    """A bundle directory is missing, incomplete or inconsistent."""


class ImageError(CdcError):
    """An image cannot be read, written or coded: unknown format, damaged, too large."""


class CheckpointError(CdcError):
    """A checkpoint is missing, incomplete, or of another architecture."""


class ConfigError(CdcError):
    """A configuration names an unknown key or holds an impossible value."""

    exit_code = 2


class Interrupted(CdcError):
    """A run was asked to stop, and has saved its state."""

    exit_code = 143
