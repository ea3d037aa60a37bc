"""The hyper decoder in integers: from the symbols of z to y's means and scales, identical on every machine.

A decoder must reproduce the encoder's means and scales to the last bit. A float network does not, since BLAS kernels
differ in their order of summation. Here, every number is an integer, and matrix products are exact in any order of
summation (`integer_layer`):

  input         clip(z, -127, 127) * 2^f0 + medians, f0 = fractional_bits[0]
  layers 0, 1   transposed convolution 5x5, stride 2, z's channels -> H -> H, then LeakyReLU 0.2
  layer 2       convolution 3x3, padding 1, H -> 2C: the means of y's C channels, then the scales

All layers are zero-padded outside the image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from cdc_jax.entropy.integer_layer import (
    MAX_ACTIVATION,
    MAX_CHANNELS,
    MAX_SYMBOL,
    MIN_ACTIVATION,
    IntegerLayer,
)
from cdc_jax.entropy.tables import NUM_SCALES
from cdc_jax.errors import BundleError

STRIDES = (2, 2, 1)
_TILE = 16  # samples of z along a tile's side


class _TileResult(NamedTuple):
    """One tile: its region in y, the last layer's input and output there, and the number of saturated values."""

    where: tuple[slice, slice]
    features: Float[np.ndarray, "h w H"]
    output: Float[np.ndarray, "h w 2*c"]
    saturations: int


def _window(x: np.ndarray, origin: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """x[rows, columns] in image coordinates, where x begins at `origin`, with zeros outside x."""
    window = np.zeros((rows[1] - rows[0], columns[1] - columns[0], x.shape[2]))
    source, target = [], []
    for start, (first, last), size in zip(origin, (rows, columns), x.shape, strict=False):
        low, high = max(first, start), min(last, start + size)
        source.append(slice(low - start, high - start))
        target.append(slice(low - first, high - first))
    window[tuple(target)] = x[tuple(source)]
    return window


def _grow(span: tuple[int, int], limit: int) -> tuple[int, int]:
    """The span extended by one sample on either side, within [0, limit)."""
    return max(span[0] - 1, 0), min(span[1] + 1, limit)


def _padded(span: tuple[int, int]) -> tuple[int, int]:
    return span[0] - 1, span[1] + 1


def _times(span: tuple[int, int], factor: int) -> tuple[int, int]:
    return span[0] * factor, span[1] * factor


@dataclass(frozen=True, eq=False)
class IntegerHyperDecoder:
    """Computes y's means and scales from z's symbols. Immutable, so safe to use from several threads.

    Attributes:
      layers: the three layers. A layer's output_bits are the next layer's input_bits.
      medians: int32: the prior's medians per channel of z, with layers[0].input_bits fractional bits.
      thresholds: int32, non-decreasing. A scale's index is the number of thresholds that are less than or equal to it.
        In format 1, they apply to the scale, with layers[2].output_bits fractional bits; in format 2 to log2 of the
        scale in quantization steps (`latents`).

    Raises:
      BundleError: the layers or arrays do not fit each other.
    """

    layers: tuple[IntegerLayer, IntegerLayer, IntegerLayer]
    medians: Int[np.ndarray, " c"]
    thresholds: Int[np.ndarray, " 255"]

    def __post_init__(self):
        channels, hidden = self.channels, self.layers[0].kernel.shape[3]
        if not 1 <= channels <= MAX_CHANNELS:
            raise BundleError(f"The integer hyper decoder must have 1 to {MAX_CHANNELS} channels, not {channels}.")
        shapes = ((channels, hidden), (hidden, hidden), (hidden, 2 * self.latent_channels))
        for layer, stride, shape in zip(self.layers, STRIDES, shapes, strict=True):
            if layer.stride != stride or layer.kernel.shape[2:] != shape:
                raise BundleError("The integer hyper decoder's layers do not fit each other.")
        if any(a.output_bits != b.input_bits for a, b in zip(self.layers, self.layers[1:], strict=False)):
            raise BundleError("The integer hyper decoder's fractional bits do not fit each other.")
        if self.medians.dtype != np.int32 or self.medians.shape != (channels,):
            raise BundleError(f"The integer hyper decoder's medians must be int32 [{channels}].")
        if self.thresholds.dtype != np.int32 or self.thresholds.shape != (NUM_SCALES - 1,):
            raise BundleError(f"The integer hyper decoder's thresholds must be int32 [{NUM_SCALES - 1}].")
        if np.any(np.diff(self.thresholds.astype(np.int64)) < 0):
            raise BundleError("The integer hyper decoder's thresholds must not decrease.")

    @property
    def channels(self) -> int:
        """The number of channels of z."""
        return len(self.medians)

    @property
    def latent_channels(self) -> int:
        """The number of channels of y."""
        return self.layers[2].kernel.shape[3] // 2

    def matmul(self, x: Float[np.ndarray, "n k"], matrix: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "n m"]:
        """The matrix product of all layers, which tests replace with another order of summation or another type."""
        return x @ matrix

    def decode(
        self, z: Int[np.ndarray, "h w z"]
    ) -> tuple[Float[np.ndarray, "4*h 4*w c"], UInt8[np.ndarray, "4*h 4*w c"]]:
        """Computes y's means and scale indices in a model of format 1.

        Args:
          z: symbols, int32.

        Returns:
          Means, which are exact multiples of 2^-output_bits, and scale indices.

        Raises:
          ValueError: z has the wrong type or shape.
        """
        channels = self.latent_channels
        mean = np.empty((4 * z.shape[0], 4 * z.shape[1], channels), np.float32)
        scale_index = np.empty(mean.shape, np.uint8)
        unit = 2.0 ** -self.layers[-1].output_bits
        for tile in self._tiles(z, _TILE):
            np.multiply(tile.output[..., :channels], unit, out=mean[tile.where], casting="same_kind")
            scale = tile.output[..., channels:].astype(np.int32)
            scale_index[tile.where] = np.searchsorted(self.thresholds, scale, side="right")
        return mean, scale_index

    def decode_integers(self, z: Int[np.ndarray, "h w z"]) -> Int[np.ndarray, "4*h 4*w 2*c"]:
        """The last layer's output, int32 with its output_bits fractional bits: the means, then the scales."""
        return self.decode_with_features(z)[1]

    def decode_with_features(
        self, z: Int[np.ndarray, "h w z"]
    ) -> tuple[Int[np.ndarray, "4*h 4*w H"], Int[np.ndarray, "4*h 4*w 2*c"]]:
        """The last layer's input and output, int32."""
        size = 4 * z.shape[0], 4 * z.shape[1]
        features = np.empty((*size, self.layers[2].kernel.shape[2]), np.int32)
        output = np.empty((*size, 2 * self.latent_channels), np.int32)
        for tile in self._tiles(z, _TILE):
            features[tile.where], output[tile.where] = tile.features, tile.output
        return features, output

    def count_saturations(self, z: Int[np.ndarray, "h w z"]) -> int:
        """The number of saturated values, including clipped symbols of z; for the model card."""
        [tile] = self._tiles(z, max(z.shape[:2]))
        return tile.saturations

    def _tiles(self, z: np.ndarray, side: int) -> Iterator[_TileResult]:
        """Yields the last layer tile by tile. Recomputes the margins of each tile, so the result has no seams."""
        if z.ndim != 3 or z.shape[2] != self.channels or z.dtype != np.int32 or z.size == 0:
            raise ValueError(f"z must be int32 [h, w, {self.channels}], not {z.dtype} {z.shape}.")
        size = z.shape[:2]
        for top in range(0, size[0], side):
            for left in range(0, size[1], side):
                core = (top, min(top + side, size[0])), (left, min(left + side, size[1]))
                # Spans of z that layers 0 and 1 must be computed from, in samples of z and of layer 0's output.
                first = tuple(_grow(core[axis], size[axis]) for axis in (0, 1))
                second = tuple(_grow(_times(core[axis], 2), 2 * size[axis]) for axis in (0, 1))
                rows, columns = (_grow(first[axis], size[axis]) for axis in (0, 1))
                x, saturations = self._input(z[slice(*rows), slice(*columns)])
                origin = rows[0], columns[0]
                third = tuple(_times(span, 4) for span in core)
                for layer, spans in zip(self.layers, (first, second, third), strict=True):
                    x = _window(x, origin, *map(_padded, spans))
                    features = x[1:-1, 1:-1]
                    x, saturated = layer(x, self.matmul)
                    origin = tuple(layer.stride * span[0] for span in spans)
                    saturations += saturated
                yield _TileResult(tuple(slice(*span) for span in third), features, x, saturations)

    def _input(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        clipped = np.clip(z, -MAX_SYMBOL, MAX_SYMBOL)
        x = clipped * 2.0 ** self.layers[0].input_bits + self.medians
        result = np.clip(x, MIN_ACTIVATION, MAX_ACTIVATION)
        return result, int(np.count_nonzero(clipped != z) + np.count_nonzero(result != x))
