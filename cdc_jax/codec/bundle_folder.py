"""Where bundles lie: what counts as one, where a new one may go, and the one that comes with the package."""

from __future__ import annotations

import os
from pathlib import Path

from cdc_jax.errors import BundleError

_SHIPPED = Path(__file__).resolve().parent.parent / "shipped"


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like a bundle; a training run's, which may hold the same files, does not."""
    folder = path if hasattr(path, "is_file") else Path(path)  # it may lie in an object store (`etils.epath.Path`)
    files = all((folder / name).is_file() for name in ("config.json", "coding.npz"))
    return files and not (folder / "checkpoints").is_dir()


def exists_already(path: str | os.PathLike[str]) -> str:
    """The message for a folder that is not to be replaced."""
    return f"{path} exists already and was kept: choose another folder, or replace it (--force)."


def check_new_bundle(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raises BundleError unless `path` is free: missing, an empty folder or, with `overwrite`, another bundle."""
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    if not overwrite:
        raise BundleError(exists_already(path))
    if not is_bundle(path):
        raise BundleError(f"{path} is not a bundle and was kept: choose another folder.")


def shipped_bundle() -> Path:
    """The folder of the bundle that is used where no model is named.

    Raises:
      BundleError: this installation has none.
    """
    if not is_bundle(_SHIPPED):
        raise BundleError(
            "This installation of cdc_jax came without its model: install it again from a full copy, or name a bundle "
            "(--model BUNDLE)."
        )
    return _SHIPPED
