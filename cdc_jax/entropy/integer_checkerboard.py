"""The checkerboard context model in integers: corrects y's means and scales at half of y's positions.

A position is an anchor if row + column is even. The anchors are coded first. For each of the other positions,

  mix    Σ anchor_kernel * [ŷ, magnitude] over the 4 nearest anchors + Σ feature_kernel * features
         + quality_kernel * quality + mix_bias, shifted, saturated, LeakyReLU 0.2
  rest   Σ rest_kernel * mix + rest_bias, shifted, saturated, and added to the hyper decoder's output

All inputs are in fixed point with F fractional bits:

  magnitude   log2(1 + |symbol|), interpolated linearly between powers of two: with 1 + |symbol| = 2^k + r and
              0 <= r < 2^k, it is (k << F) + ((r << F) >> k)
  quality     (level << F) // 25600

Outside the image, ŷ and the magnitude are zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from cdc_jax.entropy.integer_layer import (
    CHUNK_VALUES,
    MAX_ACTIVATION,
    MIN_ACTIVATION,
    check_bits,
    check_sums,
    finish_sums,
)
from cdc_jax.errors import BundleError
from cdc_jax.io.cdc_file import MAX_LEVEL

TAPS = [(0, 1), (1, 0), (1, 2), (2, 1)]  # the positions of a 3x3 kernel that are anchors


def anchor_mask(height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """True at the anchors: where row + column is even."""
    return (np.arange(height)[:, None] + np.arange(width)) % 2 == 0


def log2_magnitude(symbols: Int[np.ndarray, "..."], fractional_bits: int) -> Int[np.ndarray, "..."]:
    """log2(1 + |symbol|), interpolated linearly between powers of two, in fixed point: int32, saturated to 24 bits."""
    flat = symbols.reshape(-1)
    nonzero = np.flatnonzero(flat)  # most symbols are 0, and so are their magnitudes
    magnitude = 1 + np.abs(flat[nonzero].astype(np.int64))
    exponent = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64) - 1
    fraction = (magnitude - (np.int64(1) << exponent)) << fractional_bits >> exponent
    result = np.zeros(flat.shape, np.int32)
    result[nonzero] = np.minimum((exponent << fractional_bits) + fraction, MAX_ACTIVATION)
    return result.reshape(symbols.shape)


@dataclass(frozen=True, eq=False)
class IntegerCheckerboard:
    """The integer checkerboard. Immutable, so safe to use from several threads.

    Attributes:
      anchor_kernel: int32 [4, 2c, H]: taps above, left, right, below; inputs are the channels of ŷ, then of the
        magnitudes.
      feature_kernel: int32 [H, H].
      quality_kernel: int32 [H].
      mix_bias: int64 [H], with mix_weight_bits + latent_bits fractional bits.
      rest_kernel: int32 [H, 2c].
      rest_bias: int64 [2c], with rest_weight_bits + mix_bits fractional bits.
      latent_bits: fractional bits F of ŷ, the features and the hyper decoder's output.
      mix_weight_bits: fractional bits of the first three kernels.
      mix_bits: fractional bits of the first layer's output.
      rest_weight_bits: fractional bits of `rest_kernel`.

    Raises:
      BundleError: the arrays do not fit each other, or sums might not be exact.
    """

    anchor_kernel: Int[np.ndarray, "4 2*c H"]
    feature_kernel: Int[np.ndarray, "H H"]
    quality_kernel: Int[np.ndarray, " H"]
    mix_bias: Int[np.ndarray, " H"]
    rest_kernel: Int[np.ndarray, "H 2*c"]
    rest_bias: Int[np.ndarray, " 2*c"]
    latent_bits: int
    mix_weight_bits: int
    mix_bits: int
    rest_weight_bits: int

    def __post_init__(self):
        kernels = (self.anchor_kernel, self.feature_kernel, self.quality_kernel, self.rest_kernel)
        biases = (self.mix_bias, self.rest_bias)
        if any(k.dtype != np.int32 for k in kernels) or any(b.dtype != np.int64 for b in biases):
            raise BundleError("The checkerboard's kernels must be int32, its biases int64.")
        if self.anchor_kernel.ndim != 3 or self.anchor_kernel.shape[0] != len(TAPS) or self.mix_bias.ndim != 1:
            raise BundleError(f"The checkerboard's anchor kernel must be [{len(TAPS)}, 2 channels, hidden].")
        channels, hidden = self.channels, len(self.mix_bias)
        shapes = ((len(TAPS), 2 * channels, hidden), (hidden, hidden), (hidden,), (hidden, 2 * channels))
        if any(k.shape != shape for k, shape in zip(kernels, shapes, strict=True)) or 0 in shapes[0]:
            raise BundleError("The checkerboard's kernels do not fit each other.")
        if self.rest_bias.shape != (2 * channels,):
            raise BundleError("The checkerboard's last bias does not fit its kernel.")
        weight_bits = self.mix_weight_bits, self.rest_weight_bits
        check_bits("checkerboard", weight_bits, [self.latent_bits, self.mix_bits], self.shifts)
        inputs = np.concatenate(
            [self.anchor_kernel.reshape(-1, hidden), self.feature_kernel, self.quality_kernel[None]]
        )
        check_sums("checkerboard", [inputs], self.mix_bias, self.shifts[0])
        check_sums("checkerboard", [self.rest_kernel], self.rest_bias, self.shifts[1])

    @property
    def channels(self) -> int:
        """The number of channels of y."""
        return self.anchor_kernel.shape[1] // 2

    @property
    def shifts(self) -> tuple[int, int]:
        """The right shifts of the two layers' sums, in bits."""
        return (
            self.mix_weight_bits + self.latent_bits - self.mix_bits,
            self.rest_weight_bits + self.mix_bits - self.latent_bits,
        )

    @cached_property
    def _matrices(self) -> tuple[np.ndarray, np.ndarray]:
        anchor = self.anchor_kernel.reshape(-1, len(self.mix_bias))
        return np.concatenate([anchor, self.feature_kernel]).astype(np.float64), self.rest_kernel.astype(np.float64)

    def matmul(self, x: Float[np.ndarray, "n k"], matrix: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "n m"]:
        """The matrix product of both layers, which tests replace with another order of summation or another type."""
        return x @ matrix

    def correct(
        self,
        output: Int[np.ndarray, "h w 2*c"],
        features: Int[np.ndarray, "h w H"],
        anchors: Int[np.ndarray, "h w c"],
        symbols: Int[np.ndarray, "h w c"],
        level: int,
    ) -> Int[np.ndarray, "h w 2*c"]:
        """The hyper decoder's output, corrected and saturated at all positions that are not anchors.

        Args:
          output, features: the last layer's output and input in the hyper decoder.
          anchors: ŷ with latent_bits fractional bits; only its values at anchors are used.
          symbols: y's symbols; only those at anchors are used.
          level: the quality in units of 1/256.
        """
        height, width, channels = anchors.shape
        mask = anchor_mask(height, width)
        padded = np.zeros((height + 2, width + 2, 2 * channels))
        inside = padded[1:-1, 1:-1]
        inside[mask, :channels] = anchors[mask]
        inside[mask, channels:] = log2_magnitude(symbols[mask], self.latent_bits)
        quality = (level << self.latent_bits) // MAX_LEVEL
        offset = self.mix_bias + self.quality_kernel.astype(np.int64) * quality
        corrected = output.copy()
        for rows, columns in self._chunks(~mask, channels):
            windows = [padded[rows + down, columns + right] for down, right in TAPS]
            mix = self.mix_sums(np.concatenate([*windows, features[rows, columns]], axis=1))
            mix, _ = finish_sums(mix, offset, self.shifts[0], leaky=True)
            rest, _ = finish_sums(self.matmul(mix, self._matrices[1]), self.rest_bias, self.shifts[1], leaky=False)
            rest += output[rows, columns]
            corrected[rows, columns] = np.clip(rest, MIN_ACTIVATION, MAX_ACTIVATION, out=rest)
        return corrected

    def mix_sums(self, inputs: Float[np.ndarray, "n 8*c+H"]) -> Float[np.ndarray, "n H"]:
        """The first layer's sums over 4 anchors (ŷ and magnitudes) and features, as integers in float64."""
        return self.matmul(inputs, self._matrices[0])

    def _chunks(self, chosen: np.ndarray, channels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields rows and columns of the chosen positions, in chunks that fit one matrix product."""
        rows, columns = np.nonzero(chosen)
        step = max(1, CHUNK_VALUES // (len(TAPS) * 2 * channels))
        for start in range(0, len(rows), step):
            yield rows[start : start + step], columns[start : start + step]
