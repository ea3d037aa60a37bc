"""Quantizes the coding networks from float weights to integers, once per exported model.

It uses only operations that IEEE 754 defines exactly (scaling by powers of two, rint, sums of integers), so that the
same weights yield the same integers on every machine.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cdc_jax.entropy import exact_math
from cdc_jax.entropy.integer_checkerboard import TAPS, IntegerCheckerboard
from cdc_jax.entropy.integer_gains import LOG2_BITS
from cdc_jax.entropy.integer_hyper_decoder import STRIDES, IntegerHyperDecoder
from cdc_jax.entropy.integer_layer import (
    EXACT_LIMIT,
    KERNEL_SIDE,
    MAX_ACTIVATION,
    MAX_FRACTIONAL_BITS,
    MAX_SYMBOL,
    MAX_WEIGHT,
    MAX_WEIGHT_BITS,
    MIN_ACTIVATION,
    IntegerLayer,
)
from cdc_jax.entropy.tables import Tables, draw_symbols
from cdc_jax.errors import BundleError

_CALIBRATION_SIDE = 16  # the activations' ranges are measured with 16x16 random samples of z


def _half_range_bits(largest: float, most_bits: int) -> int:
    """The largest number of fractional bits (0 or more) with which this value uses at most half the range."""
    return max((b for b in range(1, most_bits + 1) if largest * 2.0**b <= -MIN_ACTIVATION // 2), default=0)


def _check_layers(layers: Sequence[tuple[np.ndarray, np.ndarray]], channels: int) -> None:
    if len(layers) != len(STRIDES):
        raise BundleError(f"The hyper decoder must have {len(STRIDES)} layers, not {len(layers)}.")
    hidden = layers[0][0].shape[-1] if layers[0][0].ndim else 0
    outputs = layers[2][0].shape[-1] if layers[2][0].ndim else 0
    widths = (channels, hidden, hidden, outputs)
    for i, ((kernel, bias), stride) in enumerate(zip(layers, STRIDES, strict=True)):
        side = KERNEL_SIDE[stride]
        shapes = ("kernel", kernel, (side, side, *widths[i : i + 2])), ("bias", bias, widths[i + 1 : i + 2])
        for name, array, shape in shapes:
            if array.dtype != np.float32 or array.shape != shape:
                raise BundleError(
                    f"The hyper decoder's {name} {i} must be float32 {shape}, not {array.dtype} {array.shape}."
                )


def _quantize_layer(kernel: np.ndarray, bias: np.ndarray, stride: int, leaky: bool, input_bits: int) -> IntegerLayer:
    """A layer with the finest weights that fit 18 bits and keep every sum exact, and with 0 output bits for now."""
    if not (np.all(np.isfinite(kernel)) and np.all(np.isfinite(bias))):
        raise BundleError("The hyper decoder's weights are not all finite: the training has diverged.")
    _, exponent = np.frexp(np.abs(kernel).max())  # every |weight| < 2^exponent
    for bits in range(min(MAX_WEIGHT_BITS, 17 - int(exponent)), 0, -1):
        integers = np.rint(np.ldexp(kernel.astype(np.float64), bits))
        offsets = np.rint(np.ldexp(bias.astype(np.float64), bits + input_bits))
        if np.abs(integers).max() <= MAX_WEIGHT and np.abs(offsets).max() < EXACT_LIMIT:
            try:
                arrays = integers.astype(np.int32), offsets.astype(np.int64)
                return IntegerLayer(*arrays, stride, leaky, bits, input_bits, output_bits=0)
            except BundleError:  # a large bias would make sums inexact: try coarser weights
                continue
    raise BundleError("The hyper decoder's weights are too large for integers: the training has diverged.")


def quantize_hyper_decoder(
    layers: Sequence[tuple[Float[np.ndarray, "side side in out"], Float[np.ndarray, " out"]]],
    medians: Float[np.ndarray, " c"],
    z_tables: Tables,
    scales: Float[np.ndarray, " 256"],
    *,
    log2_scales: bool = False,
) -> IntegerHyperDecoder:
    """Quantizes the float hyper decoder. The result is the same on every machine.

    The weights of a layer share one power of two, the finest that fits 18 bits. The input and activations get up to 16
      fractional bits: the most with which random symbols from z's tables (`draw_symbols`) use at most half the range.

    Args:
      layers: three (kernel, bias), float32; the axes of a kernel are those of `IntegerLayer.kernel`.
      medians: the prior's medians, float32.
      z_tables: the prior's tables, one per channel.
      scales: the scales of y's tables. The thresholds between scale indices are their geometric midpoints.
      log2_scales: whether the thresholds apply to log2 of the scale (format 2). The last two layers then have the same
        number of fractional bits.

    Raises:
      BundleError: a weight has the wrong type or shape, is not finite, or is too large.
    """
    _check_layers(layers, len(medians))
    x, fixed, bits = _calibration_input(z_tables, np.asarray(medians, np.float64))
    integer_layers = _quantize_layers(layers, x, bits)
    if log2_scales:
        common = min(layer.output_bits for layer in integer_layers[1:])
        integer_layers[1] = replace(integer_layers[1], output_bits=common)
        kernel, bias = layers[2]
        integer_layers[2] = replace(_quantize_layer(kernel, bias, 1, False, common), output_bits=common)
        midpoints = exact_math.log(np.asarray(scales[:-1])) + exact_math.log(np.asarray(scales[1:]))
        midpoints = np.ldexp(midpoints / (2 * exact_math.log(np.float64(2))), LOG2_BITS)
    else:
        midpoints = np.ldexp(np.sqrt(scales[:-1] * scales[1:]), integer_layers[2].output_bits)
    return IntegerHyperDecoder(tuple(integer_layers), fixed, np.ceil(midpoints).astype(np.int32))


def _calibration_input(z_tables: Tables, medians: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """(network input for random symbols, medians in fixed point as int32, their fractional bits)."""
    drawn = draw_symbols(z_tables, _CALIBRATION_SIDE**2).reshape(_CALIBRATION_SIDE, _CALIBRATION_SIDE, len(z_tables))
    drawn = np.clip(drawn, -MAX_SYMBOL, MAX_SYMBOL)
    bits = _half_range_bits(float(np.abs(drawn + medians).max()), MAX_FRACTIONAL_BITS)
    fixed = np.clip(np.rint(np.ldexp(medians, bits)), MIN_ACTIVATION, MAX_ACTIVATION).astype(np.int32)
    return np.clip(drawn * 2.0**bits + fixed, MIN_ACTIVATION, MAX_ACTIVATION), fixed, bits


def _quantize_layers(layers, x: np.ndarray, bits: int) -> list[IntegerLayer]:
    """The layers, each with the largest number of output bits that the random input x allows."""
    integer_layers = []
    for (kernel, bias), stride, leaky in zip(layers, STRIDES, (True, True, False), strict=True):
        layer = _quantize_layer(kernel, bias, stride, leaky, bits)
        x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        largest = max(float(np.abs(sums + layer.bias).max()) for _, sums in layer.sums(x, np.matmul))
        most_bits = min(MAX_FRACTIONAL_BITS, layer.weight_bits + layer.input_bits - 1)
        bits = _half_range_bits(largest * 2.0**-layer.shift, most_bits)
        layer = replace(layer, output_bits=bits)
        integer_layers.append(layer)
        x, _ = layer(x, np.matmul)
    return integer_layers


def quantize_checkerboard(
    anchors: Float[np.ndarray, "3 3 2*c H"],
    features: tuple[Float[np.ndarray, "1 1 H H"], Float[np.ndarray, " H"]],
    anchors_bias: Float[np.ndarray, " H"],
    quality: tuple[Float[np.ndarray, "1 H"], Float[np.ndarray, " H"]],
    out: tuple[Float[np.ndarray, "1 1 H 2*c"], Float[np.ndarray, " 2*c"]],
    latent_bits: int,
) -> IntegerCheckerboard:
    """Quantizes the float checkerboard. The result is the same on every machine.

    Args:
      anchors, anchors_bias: the 3×3 layer over ŷ and the magnitudes, of which only the 4 taps at anchors are used.
      features: kernel and bias of the layer over the hyper decoder's features.
      quality: kernel and bias of the layer over the quality.
      out: kernel and bias of the last layer.
      latent_bits: fractional bits of the hyper decoder's output.

    Raises:
      BundleError: a weight is not finite or too large.
    """
    kernel = np.stack([anchors[row, column] for row, column in TAPS])
    hidden = kernel.shape[-1]
    inputs = np.concatenate([kernel.reshape(-1, hidden), features[0].reshape(-1, hidden), quality[0]])
    bias = anchors_bias.astype(np.float64) + features[1] + quality[1]
    mix_weight_bits, inputs, mix_bias = _quantize_matrix(inputs, bias, latent_bits)
    # ŷ is normalized and the features are of order 1, so four times the root mean square is rarely exceeded.
    typical = 4 * np.sqrt(np.max(np.sum(np.square(np.ldexp(inputs.astype(np.float64), -mix_weight_bits)), axis=0)))
    mix_bits = _half_range_bits(float(4 * typical + np.abs(bias).max()), MAX_FRACTIONAL_BITS)
    mix_bits = min(mix_bits, mix_weight_bits + latent_bits - 1)
    rest_weight_bits, rest, rest_bias = _quantize_matrix(out[0][0, 0], out[1].astype(np.float64), mix_bits)
    split = len(inputs) - hidden - 1
    return IntegerCheckerboard(
        inputs[:split].reshape(kernel.shape),
        inputs[split:-1],
        inputs[-1],
        mix_bias,
        rest,
        rest_bias,
        latent_bits,
        mix_weight_bits,
        mix_bits,
        rest_weight_bits,
    )


def _quantize_matrix(matrix: np.ndarray, bias: np.ndarray, input_bits: int) -> tuple[int, np.ndarray, np.ndarray]:
    """(weight bits, int32 matrix [inputs, out], int64 bias) with the finest weights that keep every sum exact."""
    if not (np.all(np.isfinite(matrix)) and np.all(np.isfinite(bias))):
        raise BundleError("The checkerboard's weights are not all finite: the training has diverged.")
    largest = max(float(np.abs(matrix).max()), 2.0**-MAX_WEIGHT_BITS)
    _, exponent = np.frexp(largest)
    for bits in range(min(MAX_WEIGHT_BITS, 17 - int(exponent)), 0, -1):
        integers = np.rint(np.ldexp(matrix.astype(np.float64), bits))
        offsets = np.rint(np.ldexp(bias, bits + input_bits))
        sums = np.abs(integers).sum(axis=0) * -MIN_ACTIVATION + np.abs(offsets) + 2.0 ** (bits + input_bits)
        if np.abs(integers).max() <= MAX_WEIGHT and sums.max() < EXACT_LIMIT:
            return bits, integers.astype(np.int32), offsets.astype(np.int64)
    raise BundleError("The checkerboard's weights are too large for integers: the training has diverged.")
