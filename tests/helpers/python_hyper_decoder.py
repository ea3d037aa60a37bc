"""The integer hyper decoder in Python's integers, written from docs/format.md alone: the reference arithmetic."""

from collections.abc import Iterable, Mapping

LARGEST, SMALLEST = 2**23 - 1, -(2**23)
STRIDES, SIDES = (2, 2, 1), (5, 5, 3)


def saturate(value: int) -> int:
    """Clips to 24-bit signed integers."""
    return min(max(value, SMALLEST), LARGEST)


def _sums(x: list, kernel: list, bias: list[int], stride: int) -> list:
    """bias + Σ kernel · x at every position of the output, zero-padded."""
    side, pad = len(kernel), len(kernel) // 2
    height, width = len(x), len(x[0])
    output = [[list(bias) for _ in range(stride * width)] for _ in range(stride * height)]
    for i, row in enumerate(output):
        for j, cell in enumerate(row):
            for u in range(side):
                for v in range(side):
                    a, b = i + u - pad, j + v - pad  # in the input with stride - 1 zeros after every sample
                    if a % stride or b % stride or not (0 <= a < stride * height and 0 <= b < stride * width):
                        continue
                    for value, weights in zip(x[a // stride][b // stride], kernel[u][v], strict=True):
                        if value:
                            for o, weight in enumerate(weights):
                                cell[o] += value * weight
    return output


def decode(coding: Mapping, z: list) -> list:
    """The last layer's integers, [4h][4w][2c]: the means, then the scales.

    Args:
      coding: `coding.npz`'s arrays as lists: medians, fractional_bits, weight_bits, kernel_0 … 2, bias_0 … 2.
      z: symbols, [h][w][Z].
    """
    return decode_with_features(coding, z)[1]


def decode_with_features(coding: Mapping, z: list) -> tuple[list, list]:
    """The last layer's input [4h][4w][H] and output [4h][4w][2c]; arguments as `decode`."""
    bits = coding["fractional_bits"]
    x = [
        [
            [
                saturate(min(max(symbol, -127), 127) * 2 ** bits[0] + median)
                for symbol, median in zip(cell, coding["medians"], strict=True)
            ]
            for cell in row
        ]
        for row in z
    ]
    features = x
    for layer, stride in enumerate(STRIDES):
        features, shift = x, coding["weight_bits"][layer] + bits[layer] - bits[layer + 1]
        x = _sums(x, coding[f"kernel_{layer}"], coding[f"bias_{layer}"], stride)
        for row in x:
            for cell in row:
                cell[:] = [finish(value, shift, leaky=layer < 2) for value in cell]
    return features, x


def finish(value: int, shift: int, *, leaky: bool) -> int:
    """Applies a layer's shift, saturation and LeakyReLU to a sum."""
    value = saturate((value + 2 ** (shift - 1)) >> shift)
    return (value * 52429 + 2**17) >> 18 if leaky and value < 0 else value


def scale_indices(coding: Mapping, output: list) -> list[int]:
    """y's scale indices in format 1, in raster order: the number of thresholds ≤ each scale."""
    channels = len(coding["bias_2"]) // 2
    scales: Iterable[int] = (scale for row in output for cell in row for scale in cell[channels:])
    return [sum(threshold <= scale for threshold in coding["scale_thresholds"]) for scale in scales]
