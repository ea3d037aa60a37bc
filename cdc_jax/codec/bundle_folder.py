"""Folders of bundles: what counts as a bundle, where a new one may be written, and the shipped one."""

from __future__ import annotations

import os
from pathlib import Path

from cdc_jax.errors import BundleError

_SHIPPED = Path(__file__).resolve().parent.parent / "shipped"


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a folder has the files of a bundle. A training run's folder may have them too, but does not count."""
    folder = path if hasattr(path, "is_file") else Path(path)  # an `etils.epath.Path` may be in an object store
    files = all((folder / name).is_file() for name in ("config.json", "coding.npz"))
    return files and not (folder / "checkpoints").is_dir()


def check_new_bundle(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raises BundleError unless `path` is free: missing, an empty folder or, with `overwrite`, another bundle."""
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    if not overwrite:
        raise BundleError(f"{path} exists already and was kept: choose another folder, or replace it (--force).")
    if not is_bundle(path):
        raise BundleError(f"{path} is not a bundle and was kept: choose another folder.")


def shipped_bundle() -> Path:
    """The folder of the bundle inside the package, which is used when no model is given.

    Raises:
      BundleError: this installation has no bundle.
    """
    if not is_bundle(_SHIPPED):
        raise BundleError(
            "This installation of cdc_jax came without its model: install it again from a full copy, or name a bundle "
            "(--model BUNDLE)."
        )
    return _SHIPPED
