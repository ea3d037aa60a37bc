"""Elementary functions on float64 arrays that return the same bits on every machine.

`np.exp`, `np.log`, `np.tanh` and similar functions select a kernel by the CPU's features, and the kernels differ in the
last bit. Such a bit can change a count in a coding table. The same weights, exported on two machines, would then have
different fingerprints. The functions here use only operations whose result IEEE 754 defines exactly: + - * / sqrt,
comparisons, floor, rint, and scaling by powers of two. Each operation is a separate NumPy ufunc, so nothing is fused.
There is no reduction over an axis (the order of `np.sum` depends on the CPU), and every series has a fixed number of
terms.

All functions take float64 arrays (or scalars) of any shape and return float64 arrays of that shape. Relative accuracy
is about 1e-15 unless the docstring states otherwise.
"""

import math

import numpy as np
from jaxtyping import Float

# ln 2 in two parts: the first has 20 trailing zero bits, so that its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_LOG2_E = float.fromhex("0x1.71547652b82fep+0")
_SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
_INV_SQRT_2PI = float.fromhex("0x1.9884533d43651p-2")

_EXP_TERMS = 14  # |r| <= ln(2)/2: r^15 / 15! < 1e-19
_LOG_TERMS = 12  # s^2 <= 0.0295: s^24 < 1e-18
_CENTER_TERMS = 24  # t <= 1.25: t^(2k) / (2k+1)!! < 1e-22 at k = 23
_TAIL_TERMS = 240  # t >= 1.25: converges to 1e-16
_TAIL_START = 1.25
_TAIL_END = 40.0  # the tail is 0 in float64 from 38.6 on


def _polynomial(x: np.ndarray, coefficients: list[float]) -> np.ndarray:
    """Horner's rule, highest power first."""
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x
        result = result + coefficient
    return result


def _split_exponent(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits x = k ln 2 + r with |r| <= ln(2)/2; returns (k as int32, exp(r) - 1)."""
    k = np.rint(x * _LOG2_E)
    r = x - k * _LN2_HIGH
    r = r - k * _LN2_LOW
    higher = _polynomial(r, [1.0 / math.factorial(n) for n in range(_EXP_TERMS, 1, -1)])
    return k.astype(np.int32), r + (r * r) * higher


def exp(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """e^x. Overflows to inf above 709.78, and underflows gradually to 0 below -708. NaN stays NaN."""
    x = np.asarray(x, np.float64)
    inside = np.where(np.isnan(x), 0.0, np.minimum(np.maximum(x, -746.0), 709.0))
    k, fraction = _split_exponent(inside)
    result = np.ldexp(1.0 + fraction, k)
    # Just below the overflow threshold, the exponent would be 1024: multiply in two steps.
    top = np.minimum(np.maximum(np.where(np.isnan(x), 0.0, x) - 709.0, 0.0), 1.0)
    k_top, fraction_top = _split_exponent(top)
    with np.errstate(over="ignore"):
        result = np.where(x > 709.0, result * np.ldexp(1.0 + fraction_top, k_top), result)
    result = np.where(x > 709.782712893384, np.inf, result)
    result = np.where(x < -745.1332191019412, 0.0, result)
    return np.where(np.isnan(x), x, result)


def expm1(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """e^x - 1, accurate near 0, for x <= 700 (larger values count as 700)."""
    x = np.minimum(np.asarray(x, np.float64), 700.0)
    k, fraction = _split_exponent(np.maximum(x, -60.0))  # e^-60 is negligible compared with 1
    return np.ldexp(fraction, k) + (np.ldexp(np.ones_like(x), k) - 1.0)


def log(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The natural logarithm. log(0) = -inf, log(inf) = inf; NaN for negative values and for NaN."""
    x = np.asarray(x, np.float64)
    mantissa, exponent = np.frexp(np.where((x > 0) & (x < np.inf), x, 1.0))
    small = mantissa < _SQRT_HALF
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    k = exponent.astype(np.float64) - np.where(small, 1.0, 0.0)
    # log m = 2 artanh(s), s = (m - 1) / (m + 1); the first term is separate: 2 s = f - s f, with f = m - 1 exactly.
    f = mantissa - 1.0
    s = f / (f + 2.0)
    square = s * s
    higher = square * _polynomial(square, [2.0 / (2 * n + 1) for n in range(_LOG_TERMS, 0, -1)])
    correction = s * (f - higher)  # log m = f - s (f - higher)
    result = k * _LN2_HIGH + (f - (correction - k * _LN2_LOW))
    result = np.where(x == 0, -np.inf, result)
    result = np.where(x == np.inf, np.inf, result)
    return np.where((x < 0) | np.isnan(x), np.nan, result)


def log1p(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """log(1 + x) for x > -1, accurate near 0."""
    x = np.asarray(x, np.float64)
    total = 1.0 + x
    lost = x - (total - 1.0)  # the rounding error of 1 + x
    return log(total) + lost / total


def softplus(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """log(1 + e^x), positive, without overflow."""
    x = np.asarray(x, np.float64)
    return np.maximum(x, 0.0) + log1p(exp(-np.abs(x)))


def sigmoid(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """1 / (1 + e^-x), in [0, 1], accurate in its lower tail."""
    x = np.asarray(x, np.float64)
    small = exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def tanh(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Hyperbolic tangent, in [-1, 1], accurate near 0."""
    x = np.asarray(x, np.float64)
    decay = expm1(-2.0 * np.abs(x))  # in (-1, 0]
    return np.copysign(decay / (decay + 2.0), x)


def _normal_density(t: np.ndarray) -> np.ndarray:
    """exp(-t^2/2) / sqrt(2 pi); the exponent is split so that its rounding error does not grow with t^2."""
    coarse = np.rint(t * 16.0) * 0.0625
    fine = (t - coarse) * (t + coarse)
    return exp(coarse * coarse * -0.5) * exp(fine * -0.5) * _INV_SQRT_2PI


def _normal_center(t: np.ndarray) -> np.ndarray:
    """P(0 < X < t) for 0 <= t <= _TAIL_START: density(t) * sum_k t^(2k+1) / (2k+1)!!, all terms positive."""
    square = t * t
    total = np.ones_like(t)
    for k in range(_CENTER_TERMS - 1, 0, -1):
        total = 1.0 + total * square / (2 * k + 1)
    return _normal_density(t) * (t * total)


def _normal_tail(t: np.ndarray) -> np.ndarray:
    """P(X > t) for t >= _TAIL_START: density(t) / (t + 1/(t + 2/(t + 3/...))), from the innermost fraction out."""
    fraction = t
    for k in range(_TAIL_TERMS, 0, -1):
        fraction = t + k / fraction
    return _normal_density(t) / fraction


def normal_upper_tail(t: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """P(X > t) of a standard normal X, for t >= 0 (negative t count as 0). Relative accuracy about 2e-15."""
    t = np.minimum(np.maximum(np.asarray(t, np.float64), 0.0), _TAIL_END)
    near = 0.5 - _normal_center(np.minimum(t, _TAIL_START))
    return np.where(t < _TAIL_START, near, _normal_tail(np.maximum(t, _TAIL_START)))


def normal_interval(low: Float[np.ndarray, "*shape"], high: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """P(low < X < high) of a standard normal X, for low <= high.

    Computed on the side of the tail, so that small probabilities keep their precision. The absolute accuracy is 2e-16,
    the relative accuracy about 2e-15 * P(X > nearer end) / result.
    """
    low = np.asarray(low, np.float64)
    high = np.asarray(high, np.float64)
    mirrored = low + high < 0
    near = np.where(mirrored, -high, low)
    far = np.where(mirrored, -low, high)  # |near| <= far
    distance = np.abs(near)
    center_near = _normal_center(np.minimum(distance, _TAIL_START))
    center_far = _normal_center(np.minimum(far, _TAIL_START))
    tail_near, tail_far = normal_upper_tail(distance), normal_upper_tail(far)
    around_zero = np.where(distance < _TAIL_START, center_near, 0.5 - tail_near)
    around_zero = around_zero + np.where(far < _TAIL_START, center_far, 0.5 - tail_far)
    one_sided = np.where(far < _TAIL_START, center_far - center_near, tail_near - tail_far)
    return np.where(near < 0, around_zero, one_sided)
