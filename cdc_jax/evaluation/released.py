"""Imports the authors' released checkpoints as bundles, once, so that one command can evaluate all of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from cdc_jax.codec.import_torch import import_torch
from cdc_jax.errors import BundleError, ConfigError
from cdc_jax.evaluation.rate_points import slug
from cdc_jax.io.files import write_atomically

WHERE_FROM = (
    "the authors' checkpoints are on the Hugging Face hub under rhyang/CDC_params, in files such as "
    "x_param/image-l2-use_weight5-vimeo-d64-t8193-b0.0064-x-cosine-01-float32-aux0.0_2.pt; "
    "put those to evaluate, with or without their folders, into"
)
_PERCEPTUAL_WEIGHT = re.compile(r"aux(\d+(?:\.\d+)?)")


def import_released(
    folder: str | Path, cache: Path, *, log: Callable[[str], None] = lambda line: None
) -> tuple[list[list[str]], list[str]]:
    """Imports every `.pt` file below a folder that is not in the cache yet.

    Args:
      folder: the folder with the checkpoints.
      cache: the folder for the bundles.
      log: called with a line for every import.

    Returns:
      (families, names), as `cdc.our_points` takes them. A family has one prediction type and one perceptual weight ρ;
      its bundles differ in the rate weight β.

    Raises:
      ConfigError: there is no such file; the message says where the files come from and what they are called.
      CheckpointError: a file is not a CDC checkpoint.
    """
    files = sorted(Path(folder).rglob("*.pt")) if Path(folder).is_dir() else []
    if not files:
        raise ConfigError(f"There is no .pt file in {folder}: {WHERE_FROM} that folder.")
    families: dict[str, list[str]] = {}
    for path in files:
        bundle = _cached(path, cache, log)
        families.setdefault(_family(path, _prediction(bundle)), []).append(str(bundle))
    return list(families.values()), list(families)


def _cached(path: Path, cache: Path, log: Callable[[str], None]) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    bundle, note = cache / slug(path.stem), cache / f"{slug(path.stem)}.json"
    try:
        if json.loads(note.read_text())["sha256"] == digest:
            _prediction(bundle)
            return bundle
    except (OSError, ValueError, KeyError, TypeError, BundleError):
        pass
    if bundle.exists():  # imported from another file with this name
        bundle = cache / f"{slug(path.stem)}-{digest[:8]}"
        note = bundle.with_name(bundle.name + ".json")
        if bundle.exists():
            return bundle
    log(f"importing {path.name}")
    import_torch(path, bundle)
    write_atomically(note, json.dumps({"file": path.name, "sha256": digest}).encode())
    return bundle


def _prediction(bundle: Path) -> str:
    """The prediction type of an imported bundle, without reading its weights."""
    path = bundle / "config.json"
    try:
        return json.loads(path.read_text("utf-8"))["model"]["prediction"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{path} cannot be read: delete {bundle} to import it again.") from None


def _family(path: Path, prediction: str) -> str:
    variant = {"epsilon": "ε"}.get(prediction, prediction)
    match = _PERCEPTUAL_WEIGHT.search(path.name)
    return f"CDC {variant}, ρ = {float(match.group(1)):g}" if match else f"CDC {variant}"
