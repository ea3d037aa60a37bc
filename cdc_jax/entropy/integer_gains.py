"""The gains of a variable-rate model, in integers: log2 of the gains at a quality, and the gains' inverses.

Between two anchors, log2 g is interpolated linearly, so that g grows geometrically. 1/g is 2 to the power of a number
with 16 fractional bits. It is computed as a product of repeated square roots of 2, in integers of at most 62 bits.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.errors import BundleError
from cdc_jax.io.cdc_file import MAX_LEVEL

LOG2_BITS = 16  # fractional bits of log2 g, and of the thresholds of log2 of the scale
INVERSE_BITS = 16  # fractional bits of 1/g in addition to those of the latents
MAX_LOG2 = 7 << LOG2_BITS  # limit on |log2 g|, so that a symbol times 1/g fits into 62 bits
MAX_ANCHORS = 64

_ROOT_BITS = 30  # fractional bits of the square roots


class LevelGains(NamedTuple):
    """The gains of one quality.

    Attributes:
      log2: log2 g with 16 fractional bits.
      inverse: 1/g with 16 more fractional bits than the latents.
    """

    log2: Int[np.ndarray, " c"]
    inverse: Int[np.ndarray, " c"]

    def gains(self) -> Float[np.ndarray, " c"]:
        """g in float32, for the encoder only: decoding does not depend on it."""
        return np.exp2(self.log2 * 2.0**-LOG2_BITS).astype(np.float32)


@dataclass(frozen=True, eq=False)
class IntegerGains:
    """log2 g at qualities evenly spaced from 0 to 100.

    Attributes:
      anchors: int32, with 16 fractional bits, at most 7 in magnitude, non-decreasing along the first axis.

    Raises:
      BundleError: the anchors violate these conditions.
    """

    anchors: Int[np.ndarray, "anchors c"]

    def __post_init__(self):
        shape = self.anchors.shape
        if self.anchors.dtype != np.int32 or len(shape) != 2 or not (1 <= shape[0] <= MAX_ANCHORS and shape[1] >= 1):
            raise BundleError(f"The gains must be int32 [1 to {MAX_ANCHORS} anchors, channels].")
        wide = self.anchors.astype(np.int64)
        if np.abs(wide).max() > MAX_LOG2 or np.any(np.diff(wide, axis=0) < 0):
            raise BundleError("The gains must be between 2^-7 and 2^7 and not fall with the quality.")

    def at(self, level: int, fractional_bits: int) -> LevelGains:
        """The gains of a quality.

        Args:
          level: the quality in units of 1/256, 0 to 25600.
          fractional_bits: fractional bits of the latents.

        Raises:
          ValueError: the level is out of range.
        """
        if not 0 <= level <= MAX_LEVEL:
            raise ValueError(f"A level must be in 0 to {MAX_LEVEL}, not {level}.")
        anchors, last = self.anchors.astype(np.int64), len(self.anchors) - 1
        lower = min(level * last // MAX_LEVEL, max(last - 1, 0))
        share = level * last - lower * MAX_LEVEL
        upper = anchors[min(lower + 1, last)]
        log2 = (anchors[lower] * (MAX_LEVEL - share) + upper * share + MAX_LEVEL // 2) // MAX_LEVEL
        return LevelGains(log2, _exp2((fractional_bits + INVERSE_BITS << LOG2_BITS) - log2))


def _square_roots() -> list[int]:
    """2^(1/2), 2^(1/4), … 2^(2^-16) in fixed point, each the square root of the previous one, rounded down."""
    roots = [2 << _ROOT_BITS]
    for _ in range(LOG2_BITS):
        roots.append(math.isqrt(roots[-1] << _ROOT_BITS))
    return roots[1:]


_ROOTS = _square_roots()


def _exp2(exponent: Int[np.ndarray, " c"]) -> Int[np.ndarray, " c"]:
    """2^exponent, rounded to an integer, for exponents from 0 to 60 with 16 fractional bits."""
    power = np.full(exponent.shape, 1 << _ROOT_BITS, np.int64)
    for digit, root in enumerate(_ROOTS, 1):
        chosen = exponent >> (LOG2_BITS - digit) & 1
        power = np.where(chosen, power * root >> _ROOT_BITS, power)
    whole = exponent >> LOG2_BITS
    left, right = np.maximum(whole - _ROOT_BITS, 0), np.maximum(_ROOT_BITS - whole, 0)
    return (power << left) + (1 << right >> 1) >> right


def quantize_gains(log2_gains: Float[np.ndarray, "anchors c"]) -> IntegerGains:
    """Rounds trained log2 gains, and clips them to ±7.

    Raises:
      BundleError: a value is not finite.
    """
    log2_gains = np.asarray(log2_gains, np.float64)
    if not np.all(np.isfinite(log2_gains)):
        raise BundleError("The gains are not all finite: the training has diverged.")
    fixed = np.clip(np.rint(np.ldexp(log2_gains, LOG2_BITS)), -MAX_LOG2, MAX_LOG2)
    return IntegerGains(np.maximum.accumulate(fixed, axis=0).astype(np.int32))
