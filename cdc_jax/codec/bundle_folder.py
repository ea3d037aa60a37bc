"""Where bundles are: resolves a name to a folder, decides what counts as a bundle, and creates new bundles."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cdc_jax.errors import BundleError
from cdc_jax.io import hub
from cdc_jax.io.files import new_folder, reraise_as
from cdc_jax.io.stand_ins import stand_in

CARD_FILE = "model_card.md"
_HUB_CARD_FILE = "README.md"  # what the hub shows of a repository
_SHIPPED = Path(__file__).resolve().parent.parent / "shipped"
_FETCHED = ("config.json", "coding.npz", CARD_FILE, _HUB_CARD_FILE, "weights/*", "weights.safetensors")
_REPLACED = (*_FETCHED, "lpips_vgg.npz", "*.stablehlo")


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a folder has the files of a bundle. A training run's folder may have them too, but does not count."""
    folder = path if hasattr(path, "is_file") else Path(path)  # an `etils.epath.Path` may be in an object store
    files = all((folder / name).is_file() for name in ("config.json", "coding.npz"))
    return files and not (folder / "checkpoints").is_dir()


def bundle_folder(name: str | os.PathLike[str] | None) -> Path:
    """The local folder of a bundle.

    Args:
      name: a folder, which is returned as it is; hf://OWNER/REPO[@REVISION][/SUBFOLDER], which is downloaded unless it
        is in the cache; or None, the shipped model.

    Raises:
      BundleError: there is no shipped model, or the hub has no such bundle or cannot be reached.
    """
    if name is None:
        return shipped_bundle()
    if not hub.is_hub_name(name):
        return Path(name)
    folder = hub.fetch_folder(name, _FETCHED)
    if not is_bundle(folder):
        raise BundleError(f"{name} is not a bundle: it lacks config.json or coding.npz.")
    return folder


def refuse_other_folders(folder: Path) -> None:
    """Raises BundleError for what is easily mistaken for a bundle: a training run, a clone without its large files."""
    if not is_bundle(folder) and is_bundle(folder / "bundle"):
        raise BundleError(f"{folder} is not a bundle, but {folder / 'bundle'} is: use that.")
    if (folder / "checkpoints").is_dir():
        raise BundleError(f"{folder} is a training run, not a bundle: export it with `cdc export {folder} OUT_DIR`.")
    for name in ("coding.npz", "weights.safetensors"):
        if (folder / name).is_file():
            with reraise_as(f"{folder / name} cannot be read", kind=BundleError):
                other = stand_in(folder / name)
            if other:
                raise BundleError(f"{folder / name} is not a part of a bundle: {other}.")


def exists_already(path: str | os.PathLike[str]) -> str:
    """The error message for an existing folder that must not be replaced."""
    return f"{path} exists already and was kept: choose another folder, or replace it (--force)."


def check_new_bundle(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raises BundleError unless `path` is free: missing, an empty folder or, with `overwrite`, another bundle.

    On the hub, any location without a bundle is free.
    """
    if hub.is_hub_name(path):
        if not overwrite and hub.has_file(path, "config.json"):
            raise BundleError(f"{path} has a bundle already, which was kept: choose another, or replace it (--force).")
        return
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    if not overwrite:
        raise BundleError(exists_already(path))
    if not is_bundle(path):
        raise BundleError(f"{path} is not a bundle and was kept: choose another folder.")


@contextlib.contextmanager
def new_bundle(path: str | os.PathLike[str], *, license: str, overwrite: bool) -> Iterator[Path]:
    """A temporary folder to fill in a `with` block, which then becomes the bundle at `path`, completely or not at all.

    Args:
      path: a folder, or a name on the hub. On the hub, the model card becomes README.md, headed by its metadata.
      license: the identifier of a license, for that metadata.
      overwrite: whether an existing folder that is not empty is replaced. The hub's folder is always replaced.

    Raises:
      OSError: the folder cannot be written.
      FileExistsError: the folder exists and must not be replaced.
      BundleError: the hub refuses the bundle or cannot be reached.
    """
    if not hub.is_hub_name(path):
        with new_folder(path, replace=overwrite) as folder:
            yield folder
        return
    header = hub.card_header(license)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        yield folder
        card = folder / CARD_FILE
        (folder / _HUB_CARD_FILE).write_text(header + card.read_text("utf-8"), "utf-8")
        card.unlink()
        hub.upload_folder(folder, path, replaced=_REPLACED)


def shipped_bundle() -> Path:
    """The folder of the shipped bundle, which is used if no model is given.

    Raises:
      BundleError: this installation has no bundle.
    """
    if not is_bundle(_SHIPPED):
        raise BundleError(
            "This installation of cdc_jax came without its model: install it again from a full copy, or name a bundle "
            "(--model BUNDLE)."
        )
    return _SHIPPED
