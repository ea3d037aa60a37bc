"""Files as `torch.save` writes them, and others that it never would, without PyTorch: opcodes put together by hand."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

STORAGES = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<i8": "LongStorage"}
START, STOP = b"\x80\x02", b"."
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03."  # magic number, protocol version


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if 0 <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def mapping(items: Mapping[str | bytes, bytes]) -> bytes:
    """Keys are strings, or opcodes."""
    keys = (text(key) if isinstance(key, str) else key for key in items)
    return b"}(" + b"".join(map(b"".join, zip(keys, items.values(), strict=True))) + b"u"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(key: bytes, dtype: str, length: int) -> bytes:
    """A reference to a storage, as a persistent id."""
    return tuple_of(text("storage"), name("torch", STORAGES[dtype]), key, text("cpu"), number(length)) + b"Q"


def tensor(key: str | bytes, dtype: str, length: int, shape=(), strides=(), offset: int = 0) -> bytes:
    """A view of the storage `key` (or what these opcodes make)."""
    key = text(key) if isinstance(key, str) else key
    hooks = name("collections", "OrderedDict") + b")R"
    sizes = (tuple_of(*map(number, values)) for values in (shape, strides))
    arguments = tuple_of(storage(key, dtype, length), number(offset), *sizes, b"\x89", hooks)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def write_zip(
    path: Path, value: bytes, storages: Mapping[str, np.ndarray] | None = None, *, pickled: bytes | None = None
) -> Path:
    """The layout since PyTorch 1.6; `value` are the opcodes of what it holds, `pickled` a whole pickle instead."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", START + value + STOP if pickled is None else pickled)
        archive.writestr("archive/byteorder", "little")
        for key, array in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return path


def write_legacy(path: Path, value: bytes, storages: Mapping[str, np.ndarray] | None = None) -> Path:
    """The layout before."""
    storages = storages or {}
    system = START + mapping({"little_endian": b"\x88"}) + STOP
    keys = START + b"](" + b"".join(map(text, storages)) + b"e" + STOP
    data = LEGACY_START + system + START + value + STOP + keys
    data += b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(data)
    return path


def write_fake_checkpoint(path: Path, width: int = 2) -> Path:
    """A checkpoint of the original program's layout, x-prediction, with all weights at 0.1."""
    from cdc_jax.codec.import_torch import torch_modules, torch_name
    from cdc_jax.models.config import ModelConfig
    from cdc_jax.models.params import shapes, transposed_convolutions

    config, modules = ModelConfig(width=width), torch_modules("x")
    transposed, views, storages = transposed_convolutions(config), {}, {}
    for index, (ours, leaf) in enumerate(shapes(config).items()):
        shape = leaf.shape
        if ours.endswith("kernel") and len(shape) == 4:
            rows, columns, inputs, outputs = shape
            ends = (inputs, outputs) if ours.removesuffix(".kernel") in transposed else (outputs, inputs)
            shape = (*ends, rows, columns)
        elif ours.endswith("kernel"):
            shape = shape[::-1]
        count = int(np.prod(shape))
        strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
        views[torch_name(ours, modules)] = tensor(f"{index}", "<f4", count, shape, strides)
        storages[f"{index}"] = np.full(count, 0.1, "<f4")
    return write_zip(path, mapping({"step": number(1), "model": mapping(views)}), storages)
