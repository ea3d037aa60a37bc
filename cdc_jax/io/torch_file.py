"""Reads tensors from PyTorch files without PyTorch, and without executing code from a file.

It reads both layouts: since PyTorch 1.6 a zip archive (`data.pkl` and one entry per storage), before that a sequence of
pickles and then the bytes of the storages. A restricted unpickler accepts only the names in `_KNOWN`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Shaped

from cdc_jax.errors import CheckpointError, reason_of
from cdc_jax.io.files import reraise_as
from cdc_jax.io.stand_ins import stand_in

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A one-dimensional array of numbers; tensors are views of it."""

    key: str
    dtype: str
    length: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor whose storage has not been read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, numbers: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, "..."]:
        """A copy of the tensor's elements, from the numbers of its storage.

        Raises:
          ValueError: the tensor exceeds its storage.
        """
        if len(self.shape) != len(self.strides) or min((self.offset, *self.shape, *self.strides)) < 0:
            raise ValueError("a tensor has an invalid shape")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape:
            return np.zeros(self.shape, numbers.dtype)
        if last >= numbers.size or math.prod(self.shape) > numbers.size:
            raise ValueError("a tensor is larger than its storage")
        steps = tuple(step * numbers.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps).copy()


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor, *_) -> _Tensor:
    return tensor


def _ignored(*_) -> None:
    """Replaces objects other than tensors, which are not used."""


_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch", "device"): _ignored,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Accepts only tensors, numbers, strings and containers; collects the storages by their keys."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module, name):
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of weights needs") from None

    def persistent_load(self, pid):
        kind, dtype, key, _, length = pid[:5]
        if kind != "storage" or dtype not in _STORAGE_DTYPES.values():
            raise pickle.UnpicklingError("it refers to something other than a storage")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, int(length)))


def _from_bytes(data: bytes, storage: _Storage) -> np.ndarray:
    dtype = np.dtype(storage.dtype)
    if storage.length < 0 or len(data) < storage.length * dtype.itemsize:
        raise ValueError("it ends early")
    return np.frombuffer(data, dtype, storage.length)


def _read_zip(archive: zipfile.ZipFile) -> tuple[object, Callable[[_Storage], np.ndarray]]:
    entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}

    def read(name: str) -> bytes:
        if entries[name].compress_type != zipfile.ZIP_STORED:  # PyTorch never compresses; the size would be unbounded
            raise ValueError("it is compressed")
        return archive.read(entries[name])

    pickled = read("data.pkl")
    value = _unpickler(io.BytesIO(pickled), len(pickled)).load()
    if "byteorder" in entries and read("byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine")
    return value, lambda storage: _from_bytes(read(f"data/{storage.key}"), storage)


def _read_legacy(data: bytes) -> tuple[object, Callable[[_Storage], np.ndarray]]:
    file = io.BytesIO(data)

    def load() -> tuple[object, dict[str, _Storage]]:
        unpickler = _unpickler(file, len(data))
        return unpickler.load(), unpickler.storages

    if load()[0] != _LEGACY_MAGIC or load()[0] != _LEGACY_PROTOCOL:
        raise ValueError("it does not begin like one")
    if load()[0].get("little_endian") is not True:
        raise ValueError("it was written on a big-endian machine")
    value, storages = load()
    keys = [str(key) for key in load()[0]]
    rest = memoryview(data)[file.tell() :]
    offsets, position = {}, 0
    for key in keys:  # each: the number of elements as int64, then the elements
        length = int(np.frombuffer(rest[position : position + 8], "<i8")[0])
        offsets[key] = position + 8
        position += 8 + length * np.dtype(storages[key].dtype).itemsize
    return value, lambda storage: _from_bytes(rest[offsets[storage.key] :], storage)


def _unpickler(file: BinaryIO, length: int) -> _Unpickler:
    """An unpickler for the pickle at the file's current position, after a check of its memo indices.

    A pickle chooses the memo indices of its objects, and Python allocates a table up to the largest index at once. A
    valid pickle has fewer objects than bytes, so `length`, the file's size in bytes, bounds its indices.

    Raises:
      ValueError: a memo index is larger.
    """
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > length:
            raise ValueError("it numbers more objects than it can hold")
    file.seek(start)
    return _Unpickler(file)


def _identity(loaded: Mapping) -> Mapping:
    return loaded


def read_torch_file(
    path: str | Path, select: Callable[[Mapping], Mapping] = _identity
) -> dict[str, Float[np.ndarray, "..."]]:
    """Reads a mapping from names to tensors that `torch.save` wrote, such as a `state_dict`, as NumPy arrays.

    Ignores entries that are not tensors.

    Args:
      path: the file.
      select: selects that mapping from the file's contents; may raise CheckpointError.

    Raises:
      CheckpointError: the file is missing, corrupt, or not a PyTorch file, or it contains more than tensors, numbers,
        strings and containers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file.")
    with reraise_as(f"{path} cannot be read", path, kind=CheckpointError):
        other = stand_in(path)
    if other:
        raise CheckpointError(f"{path} is not a file of PyTorch weights: {other}.")
    try:
        with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else contextlib.nullcontext() as archive:
            value, read_storage = _read_legacy(path.read_bytes()) if archive is None else _read_zip(archive)
            if not isinstance(value, Mapping):
                raise ValueError("it holds no mapping from names to tensors")
            tensors = {str(name): item for name, item in select(value).items() if isinstance(item, _Tensor)}
            return {name: tensor.read(read_storage(tensor.storage)) for name, tensor in tensors.items()}
    except CheckpointError:
        raise
    except Exception as error:  # unpickling corrupt bytes can raise any exception
        raise CheckpointError(f"{path} is not a readable file of PyTorch weights: {reason_of(error)}.") from None
