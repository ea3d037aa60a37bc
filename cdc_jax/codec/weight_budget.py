"""Checks how much memory a bundle's weights will need, before they are read. Bundles may be untrusted.

The shapes that config.json implies set the limits. Arrays on disk must have these shapes and types and be stored as one
chunk each, because the reader decompresses a chunk up to its declared size and no further.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from cdc_jax.errors import BundleError, reason_of
from cdc_jax.io.limited_reads import regular_size
from cdc_jax.models.params import check_same_weights

_FREE_BYTES = 64 << 20  # weights up to this size are read, however small they are on disk
_MAX_EXPANSION = 16  # for larger weights, bytes in memory per byte on disk; trained weights hardly compress
_MAX_FILES = 1_000
_MAX_METADATA_BYTES = 1 << 16  # per array
_DESCRIPTION_BYTES = 1 << 11  # per weight, in a description of all weights
_COMPRESSORS = (None, "zstd")

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def check_safetensors(path: Path, expected: Shapes) -> None:
    """Raises BundleError unless the file's header has a plausible size and lists the model's weights as float16."""
    from safetensors import safe_open

    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > _DESCRIPTION_BYTES * (len(expected) + 1):
        raise BundleError(f"{path} cannot be read, so the bundle is incomplete or corrupt: its header is too large.")
    with safe_open(path, framework="numpy") as stored:
        slices = {name: stored.get_slice(name) for name in stored.keys()}
        found = {name: jax.ShapeDtypeStruct(part.get_shape(), np.float16) for name, part in slices.items()}
        types = {part.get_dtype() for part in slices.values()}
    check_same_weights(expected, found, str(path))
    if types != {"F16"}:
        raise BundleError(f"{path} has weights of other types than float16: export the bundle again.")


def check_orbax(folder: Path, expected: Shapes) -> None:
    """Raises BundleError unless the folder's arrays are stored as float32 in these shapes, one chunk each."""
    weight_bytes = 4 * sum(math.prod(leaf.shape) for leaf in expected.values())
    stored_bytes = sum(_file_sizes(folder))
    if weight_bytes > max(_FREE_BYTES, _MAX_EXPANSION * stored_bytes):
        raise BundleError(
            f"{folder} has {stored_bytes} bytes for a model of {weight_bytes}: copy or export the bundle again."
        )
    for name in ("_METADATA", "manifest.ocdbt"):
        if not (folder / name).is_file():
            raise BundleError(f"{folder} is incomplete: it lacks {name}; copy or export the bundle again.")
        if (folder / name).stat().st_size > _DESCRIPTION_BYTES * (len(expected) + 1):
            raise BundleError(f"{folder / name} is too large for the model: the bundle is corrupt.")
    for name, metadata in _array_metadata(folder, expected).items():
        if metadata is not None:  # the reader reports a missing one
            _check_array(f"{folder}: the weight {name}", metadata, expected[name].shape)


def _file_sizes(folder: Path) -> list[int]:
    """Sizes of all files in a folder. Raises BundleError for a device, a pipe, a linked folder, or too many files."""
    sizes = []
    for parent, folders, files in os.walk(folder):
        linked = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        if linked or len(sizes) > _MAX_FILES:
            raise BundleError(f"{folder} has {'links to folders' if linked else 'too many files'}: it is corrupt.")
        try:
            sizes += [regular_size(os.path.join(parent, name)) for name in files]
        except OSError as error:
            raise BundleError(
                f"{error.filename} cannot be read ({reason_of(error)}): the bundle is corrupt."
            ) from error
    return sizes


def _array_metadata(folder: Path, expected: Shapes) -> dict[str, object]:
    """The description of each array, as parsed JSON; None if it is missing."""
    import tensorstore

    base = {"driver": "file", "path": f"{folder.absolute()}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    waiting = {name: store.read(f"{name}/.zarray") for name in expected}
    texts = {name: future.result().value for name, future in waiting.items()}
    if max(map(len, texts.values())) > _MAX_METADATA_BYTES:
        raise BundleError(f"{folder} is corrupt: the description of a weight is too long.")
    try:
        return {name: json.loads(text) if text else None for name, text in texts.items()}
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder} is corrupt: the description of a weight is not JSON.") from error


def _check_array(where: str, metadata: object, shape: tuple[int, ...]) -> None:
    fields = metadata if isinstance(metadata, dict) else {}
    stored = fields.get("shape")
    if stored != list(shape):
        shown = ascii(tuple(stored) if isinstance(stored, list) else stored)[:80]
        raise BundleError(f"{where} has shape {shown}, not {shape}.")
    if fields.get("chunks") != stored:
        raise BundleError(f"{where} is not stored as one chunk: export the bundle again.")
    compressor = fields.get("compressor")
    kind = compressor.get("id") if isinstance(compressor, dict) else compressor
    plain = fields.get("dtype") == "<f4" and fields.get("order") == "C" and not fields.get("filters")
    if not plain or kind not in _COMPRESSORS:
        raise BundleError(f"{where} is not stored as float32 in C order, plain or with zstd: export the bundle again.")
