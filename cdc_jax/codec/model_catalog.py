"""The models that need no download: the shipped one and the bundles in the hub's cache. Does not load JAX."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cdc_jax.codec.bundle_folder import is_bundle, shipped_bundle
from cdc_jax.errors import BundleError, ConfigError
from cdc_jax.io import hub
from cdc_jax.models.config import MAX_QUALITY, ModelConfig

SHIPPED = "shipped"


@dataclass(frozen=True)
class CatalogEntry:
    """A bundle that can be used without a download.

    Attributes:
      name: hf://OWNER/REPO@REVISION/SUBFOLDER, as `--model` takes it, without parts that have their default; or
        "shipped".
      folder: its local folder.
      fingerprint: the fingerprint of its coding model, as hexadecimal digits.
      qualities: the lowest and the highest quality; None for a single-rate model.
      num_bytes: the total size of its files.
    """

    name: str
    folder: Path
    fingerprint: str
    qualities: tuple[int, int] | None
    num_bytes: int


def models_at_hand() -> Iterator[CatalogEntry]:
    """Yields the shipped model if there is one, then the cached models in the order of their names.

    A folder that only looks like a bundle is left out. Whether a bundle is complete is checked when it is loaded.
    """
    try:
        yield _entry(SHIPPED, shipped_bundle())
    except BundleError:
        pass
    for place, snapshot in hub.cached_snapshots():
        for folder in sorted({path.parent for path in snapshot.rglob("coding.npz")}):
            path = folder.relative_to(snapshot).as_posix()
            name = hub.HubName(place.repository, place.revision, "" if path == "." else path)
            try:
                yield _entry(str(name), folder)
            except BundleError:
                continue


def _entry(name: str, folder: Path) -> CatalogEntry:
    """The entry of a folder. Raises BundleError if the folder is not a bundle, or is from a later version."""
    try:
        facts = json.loads((folder / "config.json").read_text("utf-8"))
        config, fingerprint = ModelConfig.from_dict(facts["model"]), str(facts["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise BundleError(f"{folder} is not a bundle of this version.") from error
    if not is_bundle(folder):
        raise BundleError(f"{folder} is not a bundle.")
    qualities = (0, MAX_QUALITY) if config.variable_rate else None
    num_bytes = sum(os.path.getsize(path) for path in folder.rglob("*") if path.is_file())
    return CatalogEntry(name, folder, fingerprint, qualities, num_bytes)
