"""The coding model: everything that the encoder and decoder share. An immutable value, stored as `coding.npz`.

The file is a NumPy archive (`np.load` reads it) whose bytes depend only on its contents (`stored_npz`). It has these
arrays in this order, little-endian, where Z is the number of z's channels, c that of y's, and H the network's width:

  format_version      int32 []           1: a single-rate model; 2: normalized latents with gains
  z_low, z_offsets, z_counts             int32, the tables of z: see `tables.Tables`
  y_low, y_offsets, y_counts             int32, the 256 tables of y
  scales              float64 [256]      the scales of y's tables, increasing
  scale_thresholds    int32 [255]        thresholds between scale indices; format 1: of the scale, with
                                         fractional_bits[3] fractional bits; format 2: of log2 of the scale, with 16
  medians             int32 [Z]          medians of z's prior, with fractional_bits[0] fractional bits
  fractional_bits     int32 [4]          of the hyper decoder's input and its three layers' outputs
  weight_bits         int32 [3]          fractional bits of the three kernels
  kernel_0 .. 2       int32 [5, 5, Z, H], [5, 5, H, H], [3, 3, H, 2 c]
  bias_0 .. 2         int64 [H], [H], [2 c]

in format 2 also

  log2_gains          int32 [anchors, c] with 16 fractional bits: see `integer_gains`

and with a checkerboard also (`integer_checkerboard`)

  checkerboard_bits   int32 [3]          mix_weight_bits, mix_bits, rest_weight_bits
  anchor_kernel, feature_kernel, quality_kernel    int32 [4, 2 c, H], [H, H], [H]
  mix_bias            int64 [H]
  rest_kernel         int32 [H, 2 c]
  rest_bias           int64 [2 c]

In format 1, Z = H = c. The fingerprint is the first 4 bytes of a SHA-256. For each array in this order, it hashes name,
type and shape as in `kernel_0:<i4:(5, 5, 8, 8)\\n`, and then the array's bytes in C order.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cdc_jax.entropy.integer_checkerboard import IntegerCheckerboard
from cdc_jax.entropy.integer_export import quantize_checkerboard, quantize_hyper_decoder
from cdc_jax.entropy.integer_gains import IntegerGains, quantize_gains
from cdc_jax.entropy.integer_hyper_decoder import STRIDES, IntegerHyperDecoder
from cdc_jax.entropy.integer_layer import IntegerLayer
from cdc_jax.entropy.latents import LatentModel
from cdc_jax.entropy.stored_npz import pack_npz, read_npz
from cdc_jax.entropy.tables import NUM_SCALES, Tables, factorized_tables, gaussian_tables, scale_table
from cdc_jax.errors import BundleError
from cdc_jax.io.files import write_atomically

FINGERPRINT_BYTES = 4

_TABLE_FIELDS = ("low", "offsets", "counts")
_INT64 = {"bias_0", "bias_1", "bias_2", "mix_bias", "rest_bias"}
_NAMES = (
    "format_version",
    *(f"{family}_{field}" for family in "zy" for field in _TABLE_FIELDS),
    *("scales", "scale_thresholds", "medians", "fractional_bits", "weight_bits"),
    *(f"{part}_{i}" for part in ("kernel", "bias") for i in range(3)),
)
_BOARD_ARRAYS = ("anchor_kernel", "feature_kernel", "quality_kernel", "mix_bias", "rest_kernel", "rest_bias")
_BOARD_NAMES = ("checkerboard_bits", *_BOARD_ARRAYS)


@dataclass(frozen=True, eq=False)
class CodingModel:
    """Tables and integer networks of one trained entropy model.

    Attributes:
      z_tables: one table per channel of z.
      y_tables: one table per scale index.
      scales: the increasing scales of y's tables; informative only, coding does not use them.
      latents: computes y's means and scale indices from z's symbols.
    """

    z_tables: Tables
    y_tables: Tables
    scales: Float[np.ndarray, " 256"]
    latents: LatentModel

    def __post_init__(self):
        self.z_tables.validate("z", self.channels)
        self.y_tables.validate("y", NUM_SCALES)
        if self.scales.dtype != np.float64 or self.scales.shape != (NUM_SCALES,):
            raise BundleError(f"The scales must be float64 [{NUM_SCALES}].")
        if not (np.all(np.isfinite(self.scales)) and self.scales[0] > 0 and np.all(np.diff(self.scales) > 0)):
            raise BundleError("The scales must be positive, finite and increasing.")

    @property
    def hyper_decoder(self) -> IntegerHyperDecoder:
        """The integer hyper decoder of `latents`."""
        return self.latents.hyper_decoder

    @property
    def channels(self) -> int:
        """The number of channels of z."""
        return self.hyper_decoder.channels

    @property
    def latent_channels(self) -> int:
        """The number of channels of y."""
        return self.hyper_decoder.latent_channels

    @property
    def format_version(self) -> int:
        """The format version of `coding.npz` and of the model's files: 1 without gains, otherwise 2."""
        return 1 if self.latents.gains is None else 2

    @classmethod
    def build(
        cls,
        prior_params: Mapping,
        hyper_decoder_layers: Sequence[tuple[np.ndarray, np.ndarray]],
        log2_gains: Float[np.ndarray, "anchors c"] | None = None,
        checkerboard_params: Mapping | None = None,
    ) -> "CodingModel":
        """Builds the coding model from trained float32 weights. The result is bit-identical on every machine.

        Args:
          prior_params: the argument of `tables.factorized_tables`.
          hyper_decoder_layers: the layers of `integer_export.quantize_hyper_decoder`.
          log2_gains: log2 of the gains at evenly spaced qualities, in a model with normalized latents.
          checkerboard_params: the arguments of `integer_export.quantize_checkerboard` except `latent_bits`.

        Raises:
          BundleError: a weight is missing, not finite or too large, or has the wrong shape.
        """
        scales = scale_table()
        z_tables = factorized_tables(prior_params)
        net = quantize_hyper_decoder(
            hyper_decoder_layers, prior_params["medians"], z_tables, scales, log2_scales=log2_gains is not None
        )
        gains = None if log2_gains is None else quantize_gains(log2_gains)
        board = None
        if checkerboard_params is not None:
            board = quantize_checkerboard(**checkerboard_params, latent_bits=net.layers[2].output_bits)
        return cls(z_tables, gaussian_tables(scales), scales, LatentModel(net, gains, board))

    @cached_property
    def fingerprint(self) -> bytes:
        """4 bytes, stored in every file, that identify the model's contents (up to hash collisions)."""
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            digest.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.digest()[:FINGERPRINT_BYTES]

    def _arrays(self) -> dict[str, np.ndarray]:
        net, gains, board = self.hyper_decoder, self.latents.gains, self.latents.checkerboard
        values = {
            "format_version": self.format_version,
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
        if gains is not None:
            values["log2_gains"] = gains.anchors
        if board is not None:
            values["checkerboard_bits"] = [board.mix_weight_bits, board.mix_bits, board.rest_weight_bits]
            values |= {name: getattr(board, name) for name in _BOARD_ARRAYS}
        names = _names(self.format_version, values)
        return {name: np.asarray(values[name], _dtype(name), order="C") for name in names}

    def save(self, path: str | os.PathLike) -> None:
        """Writes `coding.npz`, completely or not at all. Raises OSError if it cannot be written."""
        write_atomically(path, pack_npz(self._arrays()))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "CodingModel":
        """Reads `coding.npz`, and checks everything that exact coding depends on.

        Raises:
          BundleError: the file is missing, corrupt, of a newer format, or violates the format.
        """
        arrays = read_npz(Path(path), _names)
        for name, array in arrays.items():
            if array.dtype.str != _dtype(name):
                raise BundleError(f"{path}: {name} must have type {_dtype(name)}, not {array.dtype.str}.")
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
            gains = IntegerGains(native["log2_gains"]) if "log2_gains" in native else None
            latents = LatentModel(net, gains, _board(native, fractional[3]))
            tables = [Tables(*(native[f"{family}_{field}"] for field in _TABLE_FIELDS)) for family in "zy"]
            return cls(*tables, native["scales"], latents)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error


def _board(native: Mapping[str, np.ndarray], latent_bits: int) -> IntegerCheckerboard | None:
    if "anchor_kernel" not in native:
        return None
    if native["checkerboard_bits"].shape != (3,):
        raise BundleError("checkerboard_bits must have 3 entries.")
    bits = [int(b) for b in native["checkerboard_bits"]]
    return IntegerCheckerboard(*(native[name] for name in _BOARD_ARRAYS), latent_bits, *bits)


def _names(version: int, present: Mapping | set[str]) -> tuple[str, ...]:
    """The array names of a format version in order, with all arrays of the checkerboard if any is present."""
    if version not in (1, 2):
        raise BundleError(f"coding.npz has the format version {version}, which is unknown here: upgrade cdc_jax.")
    board = version == 2 and any(name in present for name in _BOARD_NAMES)
    return (*_NAMES, *(("log2_gains",) if version == 2 else ()), *(_BOARD_NAMES if board else ()))


def _dtype(name: str) -> str:
    return "<f8" if name == "scales" else "<i8" if name in _INT64 else "<i4"
