"""Bundles as an attacker makes them of an honest one: other chunks and descriptions of weights, zstd bombs."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np

_BLOCK_BYTES = 128 << 10  # the most that one block of zstd gives


def edit_config(bundle: Path, **changes) -> None:
    """Replaces entries of config.json."""
    facts = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**facts, **changes}))


def edit_model(bundle: Path, **changes) -> None:
    """Replaces settings of the model in config.json."""
    model = json.loads((bundle / "config.json").read_text())["model"]
    edit_config(bundle, model={**model, **changes})


def zstd_bomb(num_bytes: int, content_size: int | None = None) -> bytes:
    """A zstd frame of zeros, 4 bytes for each 128 KiB; it may declare another content size, or none."""
    blocks = num_bytes // _BLOCK_BYTES
    frame = b"\x28\xb5\x2f\xfd" + (b"\x00\x50" if content_size is None else b"\xc0\x50")
    frame += b"" if content_size is None else struct.pack("<Q", content_size)
    for i in range(blocks):  # a run of one byte: last block or not, type 1, number of bytes
        frame += struct.pack("<I", _BLOCK_BYTES << 3 | 2 | (i == blocks - 1))[:3] + b"\0"
    return frame


def store(bundle: Path):
    """The key-value store of a bundle's weights, to write to."""
    import tensorstore

    base = {"driver": "file", "path": f"{bundle.absolute()}/weights/"}
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()


def write_chunk(bundle: Path, weight: str, data: bytes) -> None:
    """Replaces the chunk of a weight."""
    kept = store(bundle)
    chunks = [key for key in kept.list().result() if key.decode().rpartition("/")[0] == weight]
    [name] = [key for key in chunks if not key.endswith(b".zarray")]
    kept.write(name, data).result()


def edit_description(bundle: Path, weight: str, **changes) -> None:
    """Replaces entries of the description of a weight."""
    kept, name = store(bundle), f"{weight}/.zarray"
    kept.write(name, json.dumps({**json.loads(kept.read(name).result().value), **changes}).encode()).result()


def spoil_weight(bundle: Path, weight: str, value: float) -> None:
    """Puts a value into a weight, and leaves config.json as it is."""
    import tensorstore

    spec = {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": f"file://{bundle}/weights/", "path": weight}}
    array = tensorstore.open(spec).result()
    values = np.array(array.read().result())
    values.reshape(-1)[3] = value
    array.write(values).result()


def replace_by(kind: str, path: Path) -> None:
    """Puts a pipe, a link to an endless device, or a link to nothing in a file's place."""
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"device": "/dev/zero", "nothing": "missing"}[kind])
