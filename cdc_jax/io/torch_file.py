"""Reads tensors from PyTorch files without PyTorch, and without executing code from a file.

It reads both layouts: the zip archive since PyTorch 1.6 (`data.pkl` and one entry per storage), and the older sequence
of pickles followed by the bytes of the storages. `weight_pickle` interprets the pickles. Each storage is read once, and
all tensors together are at most twice as large as the file, so a small file never takes much time or memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from cdc_jax.errors import CheckpointError, reason_of
from cdc_jax.io.files import reraise_as
from cdc_jax.io.stand_ins import stand_in
from cdc_jax.io.weight_pickle import ordered_dict, read_weight_pickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DIMENSIONS = 32
_MAX_EXPANSION = 2  # bytes of all tensors per byte of the file; tensors that share a storage count separately
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

    @property
    def num_bytes(self) -> int:
        """The size of the tensor as a separate array."""
        return math.prod(self.shape) * np.dtype(self.storage.dtype).itemsize

    def read(self, numbers: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, "..."]:
        """A copy of the tensor's elements, from the numbers of its storage.

        Raises:
          ValueError: the tensor exceeds its storage.
        """
        if 0 in self.shape:
            return np.zeros(self.shape, numbers.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if last >= numbers.size:
            raise ValueError("a tensor exceeds its storage")
        steps = tuple(step * numbers.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps).copy()


_Contents = tuple[object, Callable[[_Storage], np.ndarray]]  # a file's value, and a reader of its storages


def _counts(values: object) -> tuple[int, ...]:
    """Sizes, strides or offsets as a tuple. Raises ValueError unless they are at most 32 integers from 0 to 2⁶³ − 1."""
    values = values if isinstance(values, list | tuple) else (values,)
    if len(values) > _MAX_DIMENSIONS or not all(isinstance(v, int) and 0 <= v < 2**63 for v in values):
        raise ValueError("a tensor has an invalid shape")
    return tuple(values)


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    tensor = _Tensor(storage, *_counts(offset), _counts(shape), _counts(strides))
    if not isinstance(storage, _Storage) or len(tensor.shape) != len(tensor.strides):
        raise ValueError("a tensor has an invalid shape")
    if math.prod(tensor.shape) > storage.length:
        raise ValueError("a tensor is larger than its storage")
    return tensor


def _rebuild_parameter(tensor, *_) -> _Tensor:
    return tensor


def _ignored(*_) -> None:
    """Replaces objects other than tensors, which are not used."""


_NAMES: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): ordered_dict,
    ("torch", "Size"): _counts,
    ("torch", "device"): _ignored,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
}


class _Storages(dict[str, _Storage]):
    """The storages that a pickle refers to, by key."""

    def load(self, pid: object) -> _Storage:
        """The storage of a persistent id. Raises ValueError if the id refers to anything else."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or pid[1] not in _STORAGE_DTYPES.values():
            raise ValueError("it refers to something other than a storage")
        _, dtype, key, _, length = pid[:5]
        if not isinstance(key, str):
            raise ValueError("a storage in it has a key that is not a string")
        return self.setdefault(key, _Storage(key, dtype, *_counts(length)))


def _from_bytes(data: bytes, storage: _Storage) -> np.ndarray:
    dtype = np.dtype(storage.dtype)
    if len(data) < storage.length * dtype.itemsize:
        raise ValueError("it ends early")
    return np.frombuffer(data, dtype, storage.length)


def _read_zip(archive: zipfile.ZipFile, file_bytes: int) -> _Contents:
    entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise ValueError("it is compressed")  # PyTorch never compresses; the size would be unbounded
    if sum(entry.file_size for entry in entries.values()) > file_bytes:
        raise ValueError("its entries overlap")

    def read(name: str) -> bytes:
        if name not in entries:
            raise ValueError(f"it lacks the entry {name[:80]}")
        return archive.read(entries[name])

    value = read_weight_pickle(io.BytesIO(read("data.pkl")), _NAMES, _Storages().load)
    if "byteorder" in entries and read("byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine")
    return value, lambda storage: _from_bytes(read(f"data/{storage.key}"), storage)


def _read_legacy(data: bytes) -> _Contents:
    file, storages = io.BytesIO(data), _Storages()

    def load() -> object:
        return read_weight_pickle(file, _NAMES, storages.load)

    if load() != _LEGACY_MAGIC or load() != _LEGACY_PROTOCOL:
        raise ValueError("it does not begin like one")
    system = load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was written on a big-endian machine")
    value, keys = load(), load()
    if not isinstance(keys, list) or {key for key in keys if isinstance(key, str)} != storages.keys():
        raise ValueError("its list of storages is not that of its tensors")
    rest = memoryview(data)[file.tell() :]
    offsets, position = {}, 0
    for key in keys:  # each: the number of elements as int64, then the elements
        length = int.from_bytes(rest[position : position + 8], "little")
        offsets[key] = position + 8
        position += 8 + length * np.dtype(storages[key].dtype).itemsize
    return value, lambda storage: _from_bytes(rest[offsets[storage.key] :], storage)


def _read_tensors(
    tensors: Iterable[tuple[str, _Tensor]], read_storage: Callable[[_Storage], np.ndarray], file_bytes: int
) -> dict[str, np.ndarray]:
    """Arrays by name. Reads each storage once. Raises ValueError if they need far more bytes than the file has."""
    by_storage: dict[str, list[tuple[str, _Tensor]]] = {}
    total_bytes = 0
    for name, tensor in tensors:
        by_storage.setdefault(tensor.storage.key, []).append((name, tensor))
        total_bytes += tensor.num_bytes
    if total_bytes > _MAX_EXPANSION * file_bytes:
        raise ValueError("its tensors are larger than the file")
    arrays = {}
    for views in by_storage.values():
        numbers = read_storage(views[0][1].storage)
        arrays |= {name: tensor.read(numbers) for name, tensor in views}
    return arrays


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
        strings and containers, or its tensors are much larger than the file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file.")
    with reraise_as(f"{path} cannot be read", path, kind=CheckpointError):
        other = stand_in(path)
    if other:
        raise CheckpointError(f"{path} is not a file of PyTorch weights: {other}.")
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else contextlib.nullcontext() as archive:
            value, read_storage = _read_legacy(path.read_bytes()) if archive is None else _read_zip(archive, size)
            if not isinstance(value, Mapping):
                raise ValueError("it holds no mapping from names to tensors")
            named = [(str(name), item) for name, item in select(value).items() if isinstance(item, _Tensor)]
            arrays = _read_tensors(named, read_storage, size)
            return {name: arrays[name] for name, _ in named}
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # corrupt bytes can raise any exception
        raise CheckpointError(f"{path} is not a readable file of PyTorch weights: {reason_of(error)}.") from None
