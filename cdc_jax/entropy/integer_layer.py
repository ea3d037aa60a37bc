"""A layer of an integer network: sums of products that are exact in any order, then a rounded shift.

  sum = Σ kernel * x + bias;  x' = saturate(floor(sum * 2^-k + 1/2)),  k at least 1
  saturate      to 24-bit signed integers
  LeakyReLU     x >= 0 ? x : floor(x * 52429 * 2^-18 + 1/2), after the saturation

Kernels are 18-bit signed integers. The integers are stored as float64, where products and sums below 2^53 are exact.
When a layer is created, it checks that Σ|kernel| * 2^23 + |bias| + 2^(k-1) < 2^53 for every output channel, so no file
can make a sum inexact.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.errors import BundleError

MAX_SYMBOL = 127  # symbols of z are clipped to ± this value before the first layer
MAX_WEIGHT = (1 << 17) - 1
MAX_ACTIVATION = (1 << 23) - 1
MIN_ACTIVATION = -(1 << 23)
EXACT_LIMIT = 1 << 53
MAX_FRACTIONAL_BITS = 16
MAX_WEIGHT_BITS = 30
MAX_CHANNELS = 1 << 12
LEAKY_SLOPE = 52429.0 * 2.0**-18  # 0.2 to 6 decimal places

MatMul = Callable[[Float[np.ndarray, "n k"], Float[np.ndarray, "k m"]], Float[np.ndarray, "n m"]]

CHUNK_VALUES = 1 << 20  # float64 values in the left operand of one matrix product: 8 MiB

# By stride and parity of the output: (kernel index, offset into a window padded by one) of the taps. A transposed
# convolution has zeros between its input samples, so even outputs use kernel rows 0, 2, 4 and odd ones use 1, 3.
_TAPS = {1: (((0, 0), (1, 1), (2, 2)),), 2: (((0, 0), (2, 1), (4, 2)), ((1, 1), (3, 2)))}
KERNEL_SIDE = {1: 3, 2: 5}


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One (transposed) convolution in integers.

    Attributes:
      kernel: int32, at most 18 bits signed, for a cross-correlation over the input. With stride 1, the input is padded
        by 1. With stride 2, it has a zero after every sample and is padded by 2.
      bias: int64, with weight_bits + input_bits fractional bits.
      stride: 1 or 2, the number of output samples per input sample along each axis.
      leaky: whether LeakyReLU follows.
      weight_bits, input_bits, output_bits: fractional bits of kernel, input and output.

    Raises:
      BundleError: an array has the wrong type or shape, a number is out of range, or sums might not be exact.
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
        network = "integer hyper decoder"
        check_bits(network, [self.weight_bits], [self.input_bits, self.output_bits], [self.shift])
        check_sums(network, [matrix for *_, matrix in self.phases], self.bias, self.shift)

    @property
    def shift(self) -> int:
        """The right shift k of the sums, in bits."""
        return self.weight_bits + self.input_bits - self.output_bits

    def largest_sum(self) -> int:
        """The largest |sum| for any input, including intermediate sums in any order."""
        return largest_sum([matrix for *_, matrix in self.phases], self.bias, self.shift)

    @cached_property
    def phases(self) -> list[tuple[int, int, list[tuple[int, int]], np.ndarray]]:
        """(row, column, window offsets of the taps, float64 matrix [taps * in, out]) for each parity of the output."""
        phases = []
        for row, row_taps in enumerate(_TAPS[self.stride]):
            for column, column_taps in enumerate(_TAPS[self.stride]):
                pairs = [(r, c) for r in row_taps for c in column_taps]
                matrix = np.concatenate([self.kernel[r[0], c[0]] for r, c in pairs]).astype(np.float64)
                phases.append((row, column, [(r[1], c[1]) for r, c in pairs], matrix))
        return phases

    def sums(
        self, x: Float[np.ndarray, "h+2 w+2 in"], matmul: MatMul
    ) -> Iterator[tuple[tuple[slice, slice], Float[np.ndarray, "rows columns out"]]]:
        """Yields Σ kernel * x in parts: (region of the output, float64 sums). x is zero-padded by 1."""
        height, width, channels = x.shape[0] - 2, x.shape[1] - 2, x.shape[2]
        for row, column, offsets, matrix in self.phases:
            step = max(1, CHUNK_VALUES // (width * len(offsets) * channels))
            for top in range(0, height, step):
                rows = min(step, height - top)
                windows = np.empty((rows, width, len(offsets), channels))
                for tap, (down, right) in enumerate(offsets):
                    windows[:, :, tap] = x[top + down : top + down + rows, right : right + width]
                products = matmul(windows.reshape(rows * width, -1), matrix).reshape(rows, width, -1)
                first, last = self.stride * top + row, self.stride * (top + rows)
                yield (slice(first, last, self.stride), slice(column, None, self.stride)), products

    def finish(self, sums: Float[np.ndarray, "*n out"]) -> tuple[Float[np.ndarray, "*n out"], int]:
        """`finish_sums` with the layer's bias, shift and LeakyReLU."""
        return finish_sums(sums, self.bias, self.shift, self.leaky)

    def __call__(
        self, x: Float[np.ndarray, "h+2 w+2 in"], matmul: MatMul
    ) -> tuple[Float[np.ndarray, "h2 w2 out"], int]:
        """Applies the layer.

        Args:
          x: input, integers in float64, zero-padded by 1.
          matmul: the matrix product.

        Returns:
          The output [stride * h, stride * w, out], integers in float64, and the number of saturated values.
        """
        height, width = self.stride * (x.shape[0] - 2), self.stride * (x.shape[1] - 2)
        result, saturations = np.empty((height, width, len(self.bias))), 0
        for where, sums in self.sums(x, matmul):
            result[where], saturated = self.finish(sums)
            saturations += saturated
        return result, saturations


def finish_sums(
    sums: Float[np.ndarray, "*n out"], bias: Int[np.ndarray, " out"], shift: int, leaky: bool
) -> tuple[Float[np.ndarray, "*n out"], int]:
    """Applies bias, shift, saturation and LeakyReLU in place. Returns the result and the number of saturated values."""
    sums += bias.astype(np.float64) + 2.0 ** (shift - 1)
    sums *= 2.0**-shift
    np.floor(sums, out=sums)
    saturated = np.count_nonzero(sums > MAX_ACTIVATION) + np.count_nonzero(sums < MIN_ACTIVATION)
    np.clip(sums, MIN_ACTIVATION, MAX_ACTIVATION, out=sums)
    if leaky:  # floor(0.2 x + 1/2) is above x exactly for negative x
        lower = sums * LEAKY_SLOPE
        lower += 0.5
        np.floor(lower, out=lower)
        np.maximum(sums, lower, out=sums)
    return sums, int(saturated)


def largest_sum(matrices: Sequence[Float[np.ndarray, "inputs out"]], bias: Int[np.ndarray, " out"], shift: int) -> int:
    """The largest |sum| of any of the matrices [inputs, out] for any 24-bit inputs, including bias and rounding."""
    weights = [np.abs(matrix.astype(np.float64)).sum(axis=0) for matrix in matrices]  # integers below 2^53: exact
    per_channel = np.max(weights, axis=0).astype(np.int64)
    largest = max(int(w) * -MIN_ACTIVATION + abs(int(b)) for w, b in zip(per_channel, bias, strict=True))
    return largest + (1 << (shift - 1))


def check_bits(network: str, weights: Iterable[int], values: Iterable[int], shifts: Iterable[int]) -> None:
    """Raises BundleError, which names the network, if fractional bits or shifts are out of range.

    Args:
      network: its name in messages.
      weights, values: fractional bits of the kernels, and of inputs and outputs.
      shifts: the right shifts of the layers' sums.
    """
    if not all(1 <= bits <= MAX_WEIGHT_BITS for bits in weights):
        raise BundleError(f"The {network}'s weight bits must be in 1 to {MAX_WEIGHT_BITS}.")
    if not all(0 <= bits <= MAX_FRACTIONAL_BITS for bits in values):
        raise BundleError(f"The {network}'s fractional bits must be in 0 to {MAX_FRACTIONAL_BITS}.")
    if min(shifts) < 1:
        raise BundleError(f"A layer of the {network} would shift to the left.")


def check_sums(
    network: str, matrices: Sequence[Float[np.ndarray, "inputs out"]], bias: Int[np.ndarray, " out"], shift: int
) -> None:
    """Raises BundleError, which names the network, if weights or the sums of any 24-bit inputs are too large."""
    if max(np.abs(matrix.astype(np.float64)).max() for matrix in matrices) > MAX_WEIGHT:
        raise BundleError(f"A weight of the {network} has more than 18 bits.")
    if largest_sum(matrices, bias, shift) >= EXACT_LIMIT:
        raise BundleError(f"Sums in the {network} could exceed 2^53 and would not be exact.")
