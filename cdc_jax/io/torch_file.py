"""Tensors out of PyTorch's own files, without PyTorch and without running anything that a file asks for.

Both layouts are read: since PyTorch 1.6 a zip archive (`data.pkl` and one entry for each storage), before that several
pickles in a row, then the storages' bytes. The pickles go through an unpickler that knows the names below and nothing
else.
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
from jaxtyping import Float

from cdc_jax.errors import CheckpointError, reason_of

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
    """One run of numbers; tensors are views of it."""

    key: str
    dtype: str
    length: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor before the bytes of its storage are there."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """A copy of the elements.

        Raises:
          ValueError: the view leaves the storage.
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
    """Stands for objects other than tensors, which are not used."""


_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch", "device"): _ignored,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Knows tensors, numbers, strings and containers; notes the storages that it meets, by their keys."""

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
        if entries[name].compress_type != zipfile.ZIP_STORED:  # PyTorch packs nothing: it would have no bound
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

    A pickle stores objects under memo indices that it chooses itself, and Python allocates a table up to the largest
    index at once. An honest pickle has fewer objects than bytes, so `length`, the file's size, bounds its indices.

    Raises:
      ValueError: a memo index is larger.
    """
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > length:
            raise ValueError("it numbers more objects than it can hold")
    file.seek(start)
    return _Unpickler(file)


def _as_it_is(loaded: Mapping) -> Mapping:
    return loaded


def read_torch_file(
    path: str | Path, select: Callable[[Mapping], Mapping] = _as_it_is
) -> dict[str, Float[np.ndarray, "..."]]:
    """The tensors of a file that `torch.save` wrote of a mapping from names to tensors, such as a `state_dict`.

    Entries that are not tensors are left out.

    Args:
      path: the file.
      select: picks that mapping out of what the file holds, where it holds more; may raise CheckpointError.

    Raises:
      CheckpointError: there is no such file, it is not one of PyTorch's, it is corrupt, or it holds more than tensors,
        numbers, strings and containers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file.")
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
