"""Export of the hyper decoder: float weights -> `IntegerHyperDecoder`, once per trained model.

Only operations that IEEE 754 fixes (scaling by powers of two, rint, sums of integers), so that the same weights give
the same integers on every machine.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cdc_jax.entropy.integer_hyper_decoder import (
    EXACT_LIMIT,
    KERNEL_SIDE,
    MAX_ACTIVATION,
    MAX_FRACTIONAL_BITS,
    MAX_SYMBOL,
    MAX_WEIGHT,
    MAX_WEIGHT_BITS,
    MIN_ACTIVATION,
    STRIDES,
    IntegerHyperDecoder,
    IntegerLayer,
)
from cdc_jax.entropy.tables import Tables, draw_symbols
from cdc_jax.errors import BundleError

_CALIBRATION_SIDE = 16  # the picture that export tries the net on has 16x16 samples of z


def _half_range_bits(largest: float, most_bits: int) -> int:
    """The most fractional bits, at least 0, with which a value of this size uses at most half the range."""
    return max((b for b in range(1, most_bits + 1) if largest * 2.0**b <= -MIN_ACTIVATION // 2), default=0)


def _check_layers(layers: Sequence[tuple[np.ndarray, np.ndarray]], channels: int) -> None:
    if len(layers) != len(STRIDES):
        raise BundleError(f"The hyper decoder must have {len(STRIDES)} layers, not {len(layers)}.")
    for i, ((kernel, bias), stride) in enumerate(zip(layers, STRIDES, strict=True)):
        side, out = KERNEL_SIDE[stride], channels if stride == 2 else 2 * channels
        for name, array, shape in (("kernel", kernel, (side, side, channels, out)), ("bias", bias, (out,))):
            if array.dtype != np.float32 or array.shape != shape:
                raise BundleError(
                    f"The hyper decoder's {name} {i} must be float32 {shape}, not {array.dtype} {array.shape}."
                )


def _quantize_layer(kernel: np.ndarray, bias: np.ndarray, stride: int, leaky: bool, input_bits: int) -> IntegerLayer:
    """The layer with the finest weights that fit 18 bits and keep every sum exact; it has no fractional bits yet."""
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
            except BundleError:  # a large bias leaves the sums too little room: try coarser weights
                continue
    raise BundleError("The hyper decoder's weights are too large for integers: the training has diverged.")


def quantize_hyper_decoder(
    layers: Sequence[tuple[Float[np.ndarray, "side side in out"], Float[np.ndarray, " out"]]],
    medians: Float[np.ndarray, " c"],
    z_tables: Tables,
    scales: Float[np.ndarray, " 256"],
) -> IntegerHyperDecoder:
    """Turns the float hyper decoder into integers. Deterministic: the same weights give the same net everywhere.

    Weights get one power of two per layer, the finest that fits 18 bits. Input and activations get 16 fractional bits,
    or fewer: so many that on a picture drawn from z's tables by a fixed generator at most half the range is used.

    Args:
      layers: three (kernel, bias), float32, kernels in the order of `IntegerLayer.kernel`.
      medians: the prior's medians, float32.
      z_tables: the prior's tables, one per channel.
      scales: the scales of y's tables; the thresholds between indices are their geometric midpoints.

    Raises:
      BundleError: weights of the wrong type or shape, not finite, or too large.
    """
    _check_layers(layers, len(medians))
    medians = np.asarray(medians, np.float64)
    drawn = draw_symbols(z_tables, _CALIBRATION_SIDE**2).reshape(_CALIBRATION_SIDE, _CALIBRATION_SIDE, len(z_tables))
    drawn = np.clip(drawn, -MAX_SYMBOL, MAX_SYMBOL)
    bits = _half_range_bits(float(np.abs(drawn + medians).max()), MAX_FRACTIONAL_BITS)
    fixed = np.clip(np.rint(np.ldexp(medians, bits)), MIN_ACTIVATION, MAX_ACTIVATION).astype(np.int32)
    x = np.clip(drawn * 2.0**bits + fixed, MIN_ACTIVATION, MAX_ACTIVATION)
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
    midpoints = np.ldexp(np.sqrt(scales[:-1] * scales[1:]), bits)
    return IntegerHyperDecoder(tuple(integer_layers), fixed, np.ceil(midpoints).astype(np.int32))
