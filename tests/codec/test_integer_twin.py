"""The integer networks of a variable-rate model agree with the float networks of training, up to rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.entropy.integer_gains import MAX_LEVEL
from cdc_jax.models.params import merge
from tests.codec.test_quality import noise, smooth


def _float_prediction(codec, z: np.ndarray, y_hat: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """(μ, σ) as in training, with a quantizer that returns the given ŷ."""

    @jax.jit
    def predict(params, z_hat, y_hat, quality):
        compressor = merge(codec.config, params).compressor
        gains = compressor.transform.log2_gains(quality)
        gain = jnp.exp2(gains)

        def quantize(mean):
            return jnp.round((y_hat - mean) * gain) / gain + mean

        return compressor.predict_latents(z_hat, gains, quality, quantize)

    z_hat = z + np.asarray(codec.params["compressor.prior.medians"])
    mean, scale = predict(codec.params, z_hat[None], y_hat[None], np.array([level / MAX_LEVEL], np.float32))
    return np.asarray(mean[0]), np.asarray(scale[0])


@pytest.mark.parametrize("level", [0, 9536, MAX_LEVEL])
def test_means_and_scales_are_those_of_training(compact_codec, level):
    latents = compact_codec.analyze(noise(128, 192) // 2 + smooth(128, 192) // 2)
    symbols = compact_codec._reader.read(compact_codec.write(latents, quality=level / 256))[1]
    mean, scale = _float_prediction(compact_codec, symbols.z, symbols.y_hat, level)
    assert np.abs(symbols.mean - mean).max() < 2e-3 < np.abs(mean).max()
    table = np.log2(compact_codec.coding.scales)
    inside = (symbols.scale_index > 0) & (symbols.scale_index < 255)
    errors = np.abs(table[symbols.scale_index] - np.log2(scale))[inside]
    assert inside.mean() > 0.9 and errors.max() < 0.5 * (table[1] - table[0]) + 5e-3
    assert np.ptp(np.log2(scale)) > 3


@pytest.mark.parametrize("quality", [0, 37.25, 100])
def test_file_size_equals_the_rate_of_training(compact_codec, quality):
    image = smooth(200, 130)
    coded_bits = sum(compact_codec.part_bits(compact_codec.analyze(image), quality=quality))
    assert abs(coded_bits / compact_codec.estimate_bits(image, quality=quality) - 1) < 0.02
