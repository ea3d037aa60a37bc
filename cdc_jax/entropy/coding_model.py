"""All that a decoder must share with the encoder, as one immutable value and one file, `coding.npz`.

The file is an ordinary NumPy archive (`np.load` reads it), but written here byte by byte: the same content gives the
same file on every machine, under every Python and NumPy. Its arrays, little-endian, in this order:

  format_version      int32 []           1
  z_low, z_offsets, z_counts             int32, the tables of z: see `tables.Tables`
  y_low, y_offsets, y_counts             int32, the 256 tables of y
  scales              float64 [256]      the scales of y's tables, increasing
  scale_thresholds    int32 [255]        of the scale indices, with fractional_bits[3] fractional bits
  medians             int32 [c]          of z's prior, with fractional_bits[0] fractional bits
  fractional_bits     int32 [4]          of the integer net's input and its three layers' outputs
  weight_bits         int32 [3]          fractional bits of the three kernels
  kernel_0 .. 2       int32 [5, 5, c, c], [5, 5, c, c], [3, 3, c, 2 c]
  bias_0 .. 2         int64 [c], [c], [2 c]

The fingerprint is the beginning of the SHA-256 of, for each array in this order: its name, type, and shape as in
`name:<i4:(5, 5, 8, 8)\\n`, and its bytes in C order.
"""

import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cdc_jax.entropy.integer_export import quantize_hyper_decoder
from cdc_jax.entropy.integer_hyper_decoder import STRIDES, IntegerHyperDecoder, IntegerLayer
from cdc_jax.entropy.tables import NUM_SCALES, Tables, factorized_tables, gaussian_tables, scale_table
from cdc_jax.errors import BundleError
from cdc_jax.io.files import write_atomically

FORMAT_VERSION = 1
FINGERPRINT_BYTES = 4

_TABLE_FIELDS = ("low", "offsets", "counts")
_DTYPES = {"scales": "<f8", "bias_0": "<i8", "bias_1": "<i8", "bias_2": "<i8"}  # all others are "<i4"
_NAMES = (
    "format_version",
    *(f"{family}_{field}" for family in "zy" for field in _TABLE_FIELDS),
    *("scales", "scale_thresholds", "medians", "fractional_bits", "weight_bits"),
    *(f"{part}_{i}" for part in ("kernel", "bias") for i in range(3)),
)


@dataclass(frozen=True, eq=False)
class CodingModel:
    """Tables and integer hyper decoder of one trained entropy model.

    Attributes:
      z_tables: one table per channel.
      y_tables: one table per scale.
      scales: float64 [256], increasing; for information, coding does not use them.
      hyper_decoder: from z's symbols to y's means and scale indices.
    """

    z_tables: Tables
    y_tables: Tables
    scales: Float[np.ndarray, " 256"]
    hyper_decoder: IntegerHyperDecoder

    def __post_init__(self):
        self.z_tables.validate("z", self.channels)
        self.y_tables.validate("y", NUM_SCALES)
        if self.scales.dtype != np.float64 or self.scales.shape != (NUM_SCALES,):
            raise BundleError(f"The scales must be float64 [{NUM_SCALES}].")
        if not (np.all(np.isfinite(self.scales)) and self.scales[0] > 0 and np.all(np.diff(self.scales) > 0)):
            raise BundleError("The scales must be positive, finite and increasing.")

    @property
    def channels(self) -> int:
        return self.hyper_decoder.channels

    @classmethod
    def build(
        cls, prior_params: Mapping, hyper_decoder_layers: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> "CodingModel":
        """The coding side of trained float32 weights; the same weights give the same bits on every machine.

        Args:
          prior_params: see `tables.factorized_tables`.
          hyper_decoder_layers: see `integer_export.quantize_hyper_decoder`.

        Raises:
          BundleError: weights that are missing, mis-shaped, not finite or too large.
        """
        scales = scale_table()
        z_tables = factorized_tables(prior_params)
        net = quantize_hyper_decoder(hyper_decoder_layers, prior_params["medians"], z_tables, scales)
        return cls(z_tables, gaussian_tables(scales), scales, net)

    @cached_property
    def fingerprint(self) -> bytes:
        """4 bytes that every file carries: equal exactly for models with equal content (but for chance)."""
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            digest.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.digest()[:FINGERPRINT_BYTES]

    def _arrays(self) -> dict[str, np.ndarray]:
        net = self.hyper_decoder
        values = {
            "format_version": FORMAT_VERSION,
            **{f"z_{field}": getattr(self.z_tables, field) for field in _TABLE_FIELDS},
            **{f"y_{field}": getattr(self.y_tables, field) for field in _TABLE_FIELDS},
            "scales": self.scales,
            "scale_thresholds": net.thresholds,
            "medians": net.medians,
            "fractional_bits": [net.layers[0].input_bits, *(layer.output_bits for layer in net.layers)],
            "weight_bits": [layer.weight_bits for layer in net.layers],
            **{f"kernel_{i}": layer.kernel for i, layer in enumerate(net.layers)},
            **{f"bias_{i}": layer.bias for i, layer in enumerate(net.layers)},
        }
        return {name: np.asarray(values[name], _DTYPES.get(name, "<i4"), order="C") for name in _NAMES}

    def save(self, path: str | os.PathLike) -> None:
        """Writes `coding.npz`, whole or not at all. Raises OSError where that is impossible."""
        write_atomically(path, _pack_npz(self._arrays()))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "CodingModel":
        """Reads `coding.npz` and checks all of it: whatever it holds, a loaded model codes exactly or not at all.

        Raises:
          BundleError: the file is missing, damaged, of a newer format, or breaks a promise of the format.
        """
        arrays = _read_npz(Path(path))
        for name, array in arrays.items():
            if array.dtype.str != _DTYPES.get(name, "<i4"):
                raise BundleError(f"{path}: {name} must have type {_DTYPES.get(name, '<i4')}, not {array.dtype.str}.")
        bits = [arrays[name] for name in ("fractional_bits", "weight_bits")]
        if bits[0].shape != (4,) or bits[1].shape != (3,):
            raise BundleError(f"{path}: fractional_bits must have 4 entries and weight_bits 3.")
        native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
        for array in native.values():
            array.setflags(write=False)
        fractional, weight = ([int(b) for b in array] for array in bits)
        try:
            layers = tuple(
                IntegerLayer(
                    native[f"kernel_{i}"], native[f"bias_{i}"], STRIDES[i], i < 2, weight[i], *fractional[i : i + 2]
                )
                for i in range(3)
            )
            net = IntegerHyperDecoder(layers, native["medians"], native["scale_thresholds"])
            tables = [Tables(*(native[f"{family}_{field}"] for field in _TABLE_FIELDS)) for family in "zy"]
            return cls(*tables, native["scales"], net)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error


def _npy(array: np.ndarray) -> bytes:
    """The array as a .npy file, version 1.0, its data aligned to 64 bytes."""
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("ascii") + array.tobytes()


def _pack_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A zip archive without compression, dates or anything else that could differ between two runs."""
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


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The format's arrays from an archive whose members are all stored: no array is larger than the file."""
    if not path.is_file():
        raise BundleError(f"{path} does not exist: the bundle is incomplete.")
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            names = [info.filename.removesuffix(".npy") for info in members]
            if "format_version" not in names:
                raise ValueError("it has no format_version")
            version = _parse_npy(archive, members[names.index("format_version")], len(content))
            if version.dtype != "<i4" or version.shape != () or version != FORMAT_VERSION:
                raise BundleError(f"{path} has a format that this version does not read: upgrade cdc_jax.")
            if sorted(names) != sorted(_NAMES):
                odd = sorted(set(names) ^ set(_NAMES))
                raise ValueError(f"missing, unknown or repeated arrays: {', '.join(odd) or 'repeated'}")
            return {
                name: _parse_npy(archive, info, len(content)) for name, info in zip(names, members, strict=True)
            }
    except BundleError:
        raise
    except Exception as error:  # zipfile and NumPy raise a dozen kinds on damaged input; all mean the same here
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
