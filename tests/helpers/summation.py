"""The integer networks with sums in other orders and types, as other BLAS kernels might compute them.

`IntegerHyperDecoder.matmul` and `IntegerCheckerboard.matmul` are the places where a kernel could make a difference.
Shuffled sums must not; the float networks show that the tests would notice.
"""

import dataclasses

import numpy as np

from cdc_jax.entropy.integer_checkerboard import IntegerCheckerboard
from cdc_jax.entropy.integer_hyper_decoder import IntegerHyperDecoder


def shuffled_product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """x @ matrix with permuted channels and randomly split sums."""
    rng = np.random.default_rng(x.shape[0])
    order = rng.permutation(x.shape[1])
    cuts = np.sort(rng.choice(x.shape[1], 3, replace=False))
    return sum(x[:, part] @ matrix[part] for part in np.split(order, cuts))


class ShuffledSums(IntegerHyperDecoder):
    """The hyper decoder's sums in another order."""

    def matmul(self, x, matrix):
        return shuffled_product(x, matrix)


class ShuffledCheckerboard(IntegerCheckerboard):
    """The checkerboard's sums in another order."""

    def matmul(self, x, matrix):
        return shuffled_product(x, matrix)


class Float32Checkerboard(IntegerCheckerboard):
    """The checkerboard's sums in float32."""

    order = slice(None)

    def matmul(self, x, matrix):
        return (x[:, self.order].astype(np.float32) @ matrix[self.order].astype(np.float32)).astype(np.float64)


class Float32CheckerboardReversed(Float32Checkerboard):
    """`Float32Checkerboard` with sums that begin with the last channel."""

    order = slice(None, None, -1)


class FloatNetwork(IntegerHyperDecoder):
    """The same weights as a float32 network, without fixed point, rounding and saturation."""

    order = slice(None)

    def matmul(self, x, matrix):
        return x[:, self.order].astype(np.float32) @ matrix[self.order].astype(np.float32)

    def decode(self, z):
        x = (z + self.medians * 2.0 ** -self.layers[0].input_bits).astype(np.float32)
        for layer in self.layers:
            output = np.empty((layer.stride * x.shape[0], layer.stride * x.shape[1], len(layer.bias)), np.float32)
            for where, sums in layer.sums(np.pad(x, ((1, 1), (1, 1), (0, 0))), self.matmul):
                output[where] = sums * np.float32(2.0**-layer.weight_bits)
            x = output + (layer.bias * 2.0 ** -(layer.weight_bits + layer.input_bits)).astype(np.float32)
            x = np.maximum(x, np.float32(0.2) * x) if layer.leaky else x
        mean, scale = np.split(x, 2, axis=-1)
        thresholds = self.thresholds * 2.0 ** -self.layers[-1].output_bits
        return np.ascontiguousarray(mean), np.searchsorted(thresholds, scale, side="right").astype(np.uint8)


class FloatNetworkReversed(FloatNetwork):
    """`FloatNetwork` with sums that begin with the last channel."""

    order = slice(None, None, -1)


def with_sums_of(net: IntegerHyperDecoder, stand_in: type[IntegerHyperDecoder]) -> IntegerHyperDecoder:
    """The same network, with the sums of another class."""
    return stand_in(net.layers, net.medians, net.thresholds)


def board_with_sums_of(board: IntegerCheckerboard, stand_in: type[IntegerCheckerboard]) -> IntegerCheckerboard:
    """The same checkerboard, with the sums of another class."""
    return stand_in(**{field.name: getattr(board, field.name) for field in dataclasses.fields(board)})
