"""Symbols to code, and networks to code them with."""

import numpy as np

from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.integer_export import quantize_hyper_decoder
from cdc_jax.entropy.integer_hyper_decoder import IntegerHyperDecoder
from cdc_jax.entropy.tables import draw_symbols, factorized_tables, scale_table
from tests.helpers import python_hyper_decoder


def typical_symbols(coder: EntropyCoder, height: int, width: int, seed: int = 0):
    """(z, y, scale_index), approximately distributed as in the model."""
    model, rng = coder.model, np.random.default_rng(seed)
    z = draw_symbols(model.z_tables, height * width + seed)[seed:].reshape(height, width, model.channels)
    _, scale_index = model.hyper_decoder.decode(z)
    y = np.rint(rng.normal(size=scale_index.shape) * model.scales[scale_index]).astype(np.int32)
    return z, y, scale_index


def random_symbols(shape: tuple[int, ...], largest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-largest, largest + 1, shape).astype(np.int32)


def build_net(weights) -> IntegerHyperDecoder:
    prior, layers = weights
    return quantize_hyper_decoder(layers, prior["medians"], factorized_tables(prior), scale_table())


def decode_in_python_integers(net: IntegerHyperDecoder, z: np.ndarray) -> np.ndarray:
    coding = {
        "medians": net.medians.tolist(),
        "fractional_bits": [net.layers[0].input_bits, *(layer.output_bits for layer in net.layers)],
        "weight_bits": [layer.weight_bits for layer in net.layers],
        **{f"kernel_{i}": layer.kernel.tolist() for i, layer in enumerate(net.layers)},
        **{f"bias_{i}": layer.bias.tolist() for i, layer in enumerate(net.layers)},
    }
    return np.array(python_hyper_decoder.decode(coding, z.tolist()))
