"""Gains, checkerboard and passes of both format versions in Python's integers, written from docs/format.md alone."""

from collections.abc import Mapping
from fractions import Fraction
from math import isqrt
from typing import NamedTuple

from tests.helpers import python_hyper_decoder
from tests.helpers.python_decoder import Passes
from tests.helpers.python_hyper_decoder import finish, saturate

TAPS = [(0, 1), (1, 0), (1, 2), (2, 1)]


class Latents(NamedTuple):
    """Means and ŷ as exact fractions, and scale indices, all in raster order."""

    means: list[Fraction]
    y_hat: list[Fraction]
    scale_indices: list[int]


def gains(coding: Mapping, level: int) -> tuple[list[int], list[int]]:
    """(log2 g, 1/g) for every channel, as integers in fixed point."""
    anchors, bits = coding["log2_gains"], coding["fractional_bits"][3]
    intervals = len(anchors) - 1
    log2 = anchors[0]
    if intervals:
        k = min(level * intervals // 25600, intervals - 1)
        s = level * intervals - 25600 * k
        pairs = zip(anchors[k], anchors[k + 1], strict=True)
        log2 = [(a * (25600 - s) + b * s + 12800) // 25600 for a, b in pairs]
    return log2, [inverse_gain(value, bits) for value in log2]


def inverse_gain(log2: int, bits: int) -> int:
    """1/g with bits + 16 fractional bits."""
    exponent = ((bits + 16) << 16) - log2
    power, whole = fractional_power(exponent), exponent >> 16
    return power << (whole - 30) if whole >= 30 else (power + 2 ** (29 - whole)) >> (30 - whole)


def fractional_power(exponent: int) -> int:
    """2 to the power of the exponent's 16 fractional bits, with 30 fractional bits."""
    root, power = 2**31, 2**30
    for digit in range(15, -1, -1):
        root = isqrt(root << 30)
        if exponent >> digit & 1:
            power = power * root >> 30
    return power


def log2_magnitude(symbol: int, bits: int) -> int:
    """log2(1 + |symbol|), interpolated linearly between powers of two."""
    size = 1 + abs(symbol)
    exponent = size.bit_length() - 1
    return (exponent << bits) + ((size - 2**exponent) << bits >> exponent)


def correct(coding: Mapping, output: list, features: list, y_hat: list, y: list, level: int) -> list:
    """The hyper decoder's output [4h][4w][2c] with the checkerboard's correction where row + column is odd."""
    height, width = len(output), len(output[0])
    corrected = [[list(cell) for cell in row] for row in output]
    for i in range(height):
        for j in range(1 - i % 2, width, 2):
            rest = _correction(coding, features[i][j], y_hat, y, level, i, j)
            corrected[i][j] = [saturate(a + b) for a, b in zip(output[i][j], rest, strict=True)]
    return corrected


def _correction(coding: Mapping, features: list[int], y_hat: list, y: list, level: int, i: int, j: int) -> list[int]:
    latent_bits = coding["fractional_bits"][3]
    mix_weight_bits, mix_bits, rest_weight_bits = coding["checkerboard_bits"]
    mix = list(coding["mix_bias"])
    for (u, t), kernel in zip(TAPS, coding["anchor_kernel"], strict=True):
        a, b = i + u - 1, j + t - 1
        if 0 <= a < len(y_hat) and 0 <= b < len(y_hat[0]):
            _add_products(mix, y_hat[a][b] + [log2_magnitude(symbol, latent_bits) for symbol in y[a][b]], kernel)
    _add_products(mix, features, coding["feature_kernel"])
    _add_products(mix, [(level << latent_bits) // 25600], [coding["quality_kernel"]])
    mix = [finish(value, mix_weight_bits + latent_bits - mix_bits, leaky=True) for value in mix]
    rest = list(coding["rest_bias"])
    _add_products(rest, mix, coding["rest_kernel"])
    return [finish(value, rest_weight_bits + mix_bits - latent_bits, leaky=False) for value in rest]


def _add_products(sums: list[int], x: list[int], kernel: list[list[int]]) -> None:
    for value, weights in zip(x, kernel, strict=True):
        for o, weight in enumerate(weights):
            sums[o] += value * weight


def passes(coding: Mapping, z: list, level: int = 0) -> Passes:
    """Runs y's passes for z's symbols [h][w][Z] at a level; returns `Latents`."""
    if coding["format_version"] == 1:
        return (yield from _one_pass(coding, z))
    features, output = python_hyper_decoder.decode_with_features(coding, z)
    height, width, channels = len(output), len(output[0]), len(output[0][0]) // 2
    bits = coding["fractional_bits"][3]
    log2, inverse = gains(coding, level)
    places = [(i, j) for i in range(height) for j in range(width)]
    parts = [places]
    if "anchor_kernel" in coding:
        parts = [[(i, j) for i, j in places if (i + j) % 2 == odd] for odd in (0, 1)]
    y_hat, y = ([[[0] * channels for _ in range(width)] for _ in range(height)] for _ in range(2))
    means, found = {}, {}
    for number, part in enumerate(parts):
        if number:
            output = correct(coding, output, features, y_hat, y, level)
        indices = {}
        for i, j in part:
            for c in range(channels):
                scale = (output[i][j][channels + c] << (18 - bits)) + log2[c]
                index = (i * width + j) * channels + c
                indices[index] = sum(threshold <= scale for threshold in coding["scale_thresholds"])
                means[index] = output[i][j][c]
        symbols = yield indices
        found |= indices
        for i, j in part:
            for c in range(channels):
                y[i][j][c] = symbol = symbols[(i * width + j) * channels + c]
                y_hat[i][j][c] = saturate(output[i][j][c] + ((symbol * inverse[c] + 2**15) >> 16))
    flat = [value for row in y_hat for cell in row for value in cell]
    return Latents(
        [Fraction(means[i], 2**bits) for i in range(len(flat))],
        [Fraction(value, 2**bits) for value in flat],
        [found[i] for i in range(len(flat))],
    )


def _one_pass(coding: Mapping, z: list) -> Passes:
    output = python_hyper_decoder.decode(coding, z)
    channels, bits = len(output[0][0]) // 2, coding["fractional_bits"][3]
    means = [Fraction(value, 2**bits) for row in output for cell in row for value in cell[:channels]]
    indices = python_hyper_decoder.scale_indices(coding, output)
    symbols = yield dict(enumerate(indices))
    return Latents(means, [mean + symbols[i] for i, mean in enumerate(means)], indices)
