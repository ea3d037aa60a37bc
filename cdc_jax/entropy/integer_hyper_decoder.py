"""The hyper decoder in integers: from the symbols of z to y's means and scale indices, the same on every machine.

A decoder must reproduce the encoder's means and scales to the last bit, and a float network does not: another BLAS
kernel sums in another order. Here every number is an integer, and the matrix products are exact in any order:

  input         clip(z, -127, 127) * 2^f0 + medians, f0 = fractional_bits[0]
  layers 0, 1   transposed convolution 5x5, stride 2, C -> C, then LeakyReLU 0.2
  layer 2       convolution 3x3, padding 1, C -> 2C: the means, then the scales
  in each       sum = Σ kernel * x + bias;  x' = saturate(floor(sum * 2^-k + 1/2)),
                k = weight_bits + fractional bits of x - fractional bits of x', at least 1
  saturate      to 24-bit signed integers
  LeakyReLU     x >= 0 ? x : floor(x * 52429 * 2^-18 + 1/2), after the saturation

Kernels are 18-bit signed integers. The integers travel in float64, where products and sums below 2^53 are exact; that
Σ|kernel| * 2^23 + |bias| + 2^(k-1) stays below 2^53 for every output channel is checked whenever a net is made, so no
file can break the promise. Outside the picture every layer sees zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, UInt8

from cdc_jax.entropy.tables import NUM_SCALES
from cdc_jax.errors import BundleError

MAX_SYMBOL = 127  # larger symbols of z are clipped on their way into the net
MAX_WEIGHT = (1 << 17) - 1
MAX_ACTIVATION = (1 << 23) - 1
MIN_ACTIVATION = -(1 << 23)
EXACT_LIMIT = 1 << 53
MAX_FRACTIONAL_BITS = 16
MAX_WEIGHT_BITS = 30
MAX_CHANNELS = 1 << 12
LEAKY_SLOPE = 52429.0 * 2.0**-18  # 0.2 to 6 digits

_TILE = 16  # samples of z along a tile's side
_CHUNK_VALUES = 1 << 20  # float64 values in the left operand of one matrix product: 8 MiB

# (kernel index, offset into a window padded by one) of the taps that meet output samples of each parity. A transposed
# convolution reads the input with zeros between its samples, so even outputs meet kernel rows 0, 2, 4, odd ones 1, 3.
_TAPS = {1: (((0, 0), (1, 1), (2, 2)),), 2: (((0, 0), (2, 1), (4, 2)), ((1, 1), (3, 2)))}
KERNEL_SIDE = {1: 3, 2: 5}
STRIDES = (2, 2, 1)


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One (transposed) convolution in integers.

    Attributes:
      kernel: int32 [side, side, in, out], at most 18 bits signed; in the order of a cross-correlation over the input
        (stride 1: padded by 1; stride 2: with a zero after every sample, padded by 2 before and 2 after).
      bias: int64 [out], with weight_bits + input_bits fractional bits.
      stride: samples of output per sample of input along each axis: 1 or 2.
      leaky: whether LeakyReLU follows.
      weight_bits, input_bits, output_bits: fractional bits of kernel, input and output.
    """

    kernel: Int[np.ndarray, "side side in out"]
    bias: Int[np.ndarray, " out"]
    stride: int
    leaky: bool
    weight_bits: int
    input_bits: int
    output_bits: int

    def __post_init__(self):
        side = KERNEL_SIDE[self.stride]
        if self.kernel.dtype != np.int32 or self.kernel.ndim != 4 or self.kernel.shape[:2] != (side, side):
            raise BundleError(f"A kernel of the integer hyper decoder must be int32 [{side}, {side}, in, out].")
        if not all(1 <= size <= 2 * MAX_CHANNELS for size in self.kernel.shape):
            raise BundleError(f"The integer hyper decoder must have 1 to {MAX_CHANNELS} channels.")
        if self.bias.dtype != np.int64 or self.bias.shape != self.kernel.shape[3:]:
            raise BundleError("A bias of the integer hyper decoder must be int64, one per output channel.")
        if not 1 <= self.weight_bits <= MAX_WEIGHT_BITS:
            raise BundleError(f"The integer hyper decoder's weight bits must lie in 1 to {MAX_WEIGHT_BITS}.")
        if not all(0 <= bits <= MAX_FRACTIONAL_BITS for bits in (self.input_bits, self.output_bits)):
            raise BundleError(f"The integer hyper decoder's fractional bits must lie in 0 to {MAX_FRACTIONAL_BITS}.")
        if self.shift < 1:
            raise BundleError("A layer of the integer hyper decoder would shift to the left.")
        if np.abs(self.kernel.astype(np.int64)).max() > MAX_WEIGHT:
            raise BundleError("A weight of the integer hyper decoder has more than 18 bits.")
        if self.largest_sum() >= EXACT_LIMIT:
            raise BundleError("Sums in the integer hyper decoder could exceed 2^53 and would not be exact.")

    @property
    def shift(self) -> int:
        return self.weight_bits + self.input_bits - self.output_bits

    def largest_sum(self) -> int:
        """The largest |sum| that any input can lead to, intermediate sums in any order included."""
        weights = [np.abs(matrix).sum(axis=0) for _, _, _, matrix in self.phases]  # integers below 2^53: exact
        per_channel = np.max(weights, axis=0).astype(np.int64)
        largest = max(int(w) * -MIN_ACTIVATION + abs(int(b)) for w, b in zip(per_channel, self.bias, strict=True))
        return largest + (1 << (self.shift - 1))

    @cached_property
    def phases(self) -> list[tuple[int, int, list[tuple[int, int]], np.ndarray]]:
        """Per parity of the output (row, column, window offsets of the taps, float64 matrix [taps * in, out])."""
        phases = []
        for row, row_taps in enumerate(_TAPS[self.stride]):
            for column, column_taps in enumerate(_TAPS[self.stride]):
                pairs = [(r, c) for r in row_taps for c in column_taps]
                matrix = np.concatenate([self.kernel[r[0], c[0]] for r, c in pairs]).astype(np.float64)
                phases.append((row, column, [(r[1], c[1]) for r, c in pairs], matrix))
        return phases

    def sums(self, x: np.ndarray, matmul) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Σ kernel * x in pieces: (where in the output, float64 [rows, columns, out]); x is padded by 1 all round."""
        height, width, channels = x.shape[0] - 2, x.shape[1] - 2, x.shape[2]
        for row, column, offsets, matrix in self.phases:
            step = max(1, _CHUNK_VALUES // (width * len(offsets) * channels))
            for top in range(0, height, step):
                rows = min(step, height - top)
                windows = np.empty((rows, width, len(offsets), channels))
                for tap, (down, right) in enumerate(offsets):
                    windows[:, :, tap] = x[top + down : top + down + rows, right : right + width]
                products = matmul(windows.reshape(rows * width, -1), matrix).reshape(rows, width, -1)
                first, last = self.stride * top + row, self.stride * (top + rows)
                yield (slice(first, last, self.stride), slice(column, None, self.stride)), products

    def finish(self, sums: np.ndarray) -> tuple[np.ndarray, int]:
        """Bias, shift, saturation and LeakyReLU, in place; also returns how many values were saturated."""
        sums += self.bias.astype(np.float64) + 2.0 ** (self.shift - 1)
        sums *= 2.0**-self.shift
        np.floor(sums, out=sums)
        saturated = np.count_nonzero(sums > MAX_ACTIVATION) + np.count_nonzero(sums < MIN_ACTIVATION)
        np.clip(sums, MIN_ACTIVATION, MAX_ACTIVATION, out=sums)
        if self.leaky:  # floor(0.2 x + 1/2) is above x exactly for negative x
            lower = sums * LEAKY_SLOPE
            lower += 0.5
            np.floor(lower, out=lower)
            np.maximum(sums, lower, out=sums)
        return sums, int(saturated)

    def __call__(self, x: np.ndarray, matmul) -> tuple[np.ndarray, int]:
        """Output for an input padded by 1 all round: (float64 integers [stride*h, stride*w, out], saturations)."""
        height, width = self.stride * (x.shape[0] - 2), self.stride * (x.shape[1] - 2)
        result, saturations = np.empty((height, width, len(self.bias))), 0
        for where, sums in self.sums(x, matmul):
            result[where], saturated = self.finish(sums)
            saturations += saturated
        return result, saturations


def _window(x: np.ndarray, origin: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """x[rows, columns] in a picture's coordinates, where x starts at `origin`; zeros where x has no samples."""
    window = np.zeros((rows[1] - rows[0], columns[1] - columns[0], x.shape[2]))
    source, target = [], []
    for start, (first, last), size in zip(origin, (rows, columns), x.shape, strict=False):
        low, high = max(first, start), min(last, start + size)
        source.append(slice(low - start, high - start))
        target.append(slice(low - first, high - first))
    window[tuple(target)] = x[tuple(source)]
    return window


def _grow(span: tuple[int, int], limit: int) -> tuple[int, int]:
    """The span with one sample more on either side, inside [0, limit)."""
    return max(span[0] - 1, 0), min(span[1] + 1, limit)


def _padded(span: tuple[int, int]) -> tuple[int, int]:
    return span[0] - 1, span[1] + 1


def _times(span: tuple[int, int], factor: int) -> tuple[int, int]:
    return span[0] * factor, span[1] * factor


@dataclass(frozen=True, eq=False)
class IntegerHyperDecoder:
    """z's symbols -> (means of y, scale indices of y). Immutable; may be used from several threads.

    Attributes:
      layers: the three layers; a layer's output_bits are the next one's input_bits.
      medians: int32 [c], the prior's medians with layers[0].input_bits fractional bits.
      thresholds: int32 [255], with layers[2].output_bits fractional bits, not decreasing; a scale's index is the number
        of thresholds that are not above it.
    """

    layers: tuple[IntegerLayer, IntegerLayer, IntegerLayer]
    medians: Int[np.ndarray, " c"]
    thresholds: Int[np.ndarray, " 255"]

    def __post_init__(self):
        channels = self.channels
        if not 1 <= channels <= MAX_CHANNELS:
            raise BundleError(f"The integer hyper decoder must have 1 to {MAX_CHANNELS} channels, not {channels}.")
        for layer, stride, out in zip(self.layers, STRIDES, (channels, channels, 2 * channels), strict=True):
            if layer.stride != stride or layer.kernel.shape[2:] != (channels, out):
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
        return len(self.medians)

    def matmul(self, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """The one product that a test replaces by sums in another order, or by another type."""
        return x @ matrix

    def decode(
        self, z: Int[np.ndarray, "h w c"]
    ) -> tuple[Float[np.ndarray, "4*h 4*w c"], UInt8[np.ndarray, "4*h 4*w c"]]:
        """Means (float32, exact multiples of 2^-output_bits) and scale indices (uint8) of y from z's symbols."""
        height, width, channels = z.shape
        mean = np.empty((4 * height, 4 * width, channels), np.float32)
        scale_index = np.empty(mean.shape, np.uint8)
        unit = 2.0 ** -self.layers[-1].output_bits
        for where, output, _ in self._tiles(z, _TILE):
            np.multiply(output[..., :channels], unit, out=mean[where], casting="same_kind")
            scale = output[..., channels:].astype(np.int32)
            scale_index[where] = np.searchsorted(self.thresholds, scale, side="right")
        return mean, scale_index

    def decode_integers(self, z: Int[np.ndarray, "h w c"]) -> Int[np.ndarray, "4*h 4*w 2*c"]:
        """The last layer's output, int32 with its output_bits fractional bits: means, then scales."""
        result = np.empty((4 * z.shape[0], 4 * z.shape[1], 2 * self.channels), np.int32)
        for where, output, _ in self._tiles(z, _TILE):
            result[where] = output
        return result

    def count_saturations(self, z: Int[np.ndarray, "h w c"]) -> int:
        """How many values, the clipped symbols of z among them, left their range on the way; for the model card."""
        [(_, _, saturations)] = self._tiles(z, max(z.shape[:2]))
        return saturations

    def _tiles(self, z: np.ndarray, side: int) -> Iterator[tuple[tuple[slice, slice], np.ndarray, int]]:
        """Last layer's output tile by tile; what a tile's neighbours add is computed again, so seams do not exist."""
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
                    x, saturated = layer(_window(x, origin, *map(_padded, spans)), self.matmul)
                    origin = tuple(layer.stride * span[0] for span in spans)
                    saturations += saturated
                yield tuple(slice(*span) for span in third), x, saturations

    def _input(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        clipped = np.clip(z, -MAX_SYMBOL, MAX_SYMBOL)
        x = clipped * 2.0 ** self.layers[0].input_bits + self.medians
        result = np.clip(x, MIN_ACTIVATION, MAX_ACTIVATION)
        return result, int(np.count_nonzero(clipped != z) + np.count_nonzero(result != x))
