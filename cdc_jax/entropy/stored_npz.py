"""NumPy archives with reproducible bytes: the same arrays yield the same file with every version of Python and NumPy.

`np.load` reads them. Members are stored, not compressed, so that no array can be larger than its file.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cdc_jax.errors import BundleError, OutOfMemoryError
from cdc_jax.io.limited_reads import read_limited

_MAX_BYTES = 1 << 30  # per archive; the paper's model has 18 MB


def _npy(array: np.ndarray) -> bytes:
    """The array as a .npy file, version 1.0, its data aligned to 64 bytes."""
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("ascii") + array.tobytes()


def pack_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a NumPy archive, without compression, dates or anything else that could differ between two runs."""
    body, directory = bytearray(), bytearray()
    for name, array in arrays.items():
        file_name, data = f"{name}.npy".encode("ascii"), _npy(array)
        # Version 2.0, no flags, stored, 1980-01-01 00:00, CRC, size twice, name length, no extra field.
        sizes = zlib.crc32(data), len(data), len(data), len(file_name), 0
        common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0x21, *sizes)
        # Made by version 2.0 for MS-DOS; no comment, first disk, no attributes, offset of the local header.
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        directory += file_name
        body += b"PK\x03\x04" + common + file_name + data
    counts = len(arrays), len(arrays), len(directory), len(body)
    return bytes(body + directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, *counts, 0))


def read_npz(path: Path, names_of: Callable[[int, set[str]], tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Reads the arrays of a coding model's archive, by name.

    Args:
      path: the archive.
      names_of: called as `names_of(format_version, present_names)`. Returns the names that the archive must have, or
        raises BundleError for an unknown version.

    Raises:
      BundleError: the file is missing, corrupt, of a newer format, or does not have these arrays.
    """
    if not path.is_file():
        raise BundleError(f"{path} does not exist, or is no regular file: the bundle is incomplete.")
    try:
        content = read_limited(path, _MAX_BYTES)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            names = [info.filename.removesuffix(".npy") for info in members]
            if "format_version" not in names:
                raise ValueError("it has no format_version")
            version = _parse_npy(archive, members[names.index("format_version")], len(content))
            if version.dtype != "<i4" or version.shape != ():
                raise BundleError(f"{path} has a format that this version does not read: upgrade cdc_jax.")
            wanted = names_of(int(version), set(names))
            if sorted(names) != sorted(wanted):
                odd = sorted(set(names) ^ set(wanted))
                raise ValueError(f"missing, unknown or repeated arrays: {', '.join(odd) or 'repeated'}")
            return {name: _parse_npy(archive, info, len(content)) for name, info in zip(names, members, strict=True)}
    except BundleError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError.during(f"read {path}") from error
    except Exception as error:  # zipfile and NumPy raise many types for corrupt files
        raise BundleError(f"{path} is not a readable coding model ({error}): export the bundle again.") from error


def _parse_npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most_bytes: int) -> np.ndarray:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most_bytes:
        raise ValueError(f"{info.filename} is compressed or too large")
    data = archive.read(info)
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{info.filename} is not a .npy file of version 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran_order or dtype.hasobject:
        raise ValueError(f"{info.filename} is not a plain array in C order")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
