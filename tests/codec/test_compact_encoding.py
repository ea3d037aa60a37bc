"""The receptive field of a cell of y in the compact layout, and encoding in tiles, which relies on it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.codec import encoding
from cdc_jax.codec.encoding import COMPACT_OVERLAP, encode_latents, image_latents
from cdc_jax.io.images import pad_to_multiple
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import merge
from tests.codec.test_quality import noise
from tests.helpers.compact import COMPACT

_SIDE, _CELL = 320, 9  # an image around one cell, 144 pixels away from its edges on one side, 160 on the other
# Pixels before and after a cell's own 16 in its receptive field, computed from the layers.
_SEEN = {2: (90, 76), 4: (84, 72), 8: (72, 64)}
_CHANNELS = {2: (6, 6, 6, 6), 4: (6, 6, 6), 8: (6, 6)}


def _config(fold: int):
    return dataclasses.replace(COMPACT, fold=fold, encoder_channels=_CHANNELS[fold], unet_channels=_CHANNELS[fold])


@pytest.mark.parametrize("fold", [2, 4, 8])
def test_the_receptive_field_is_less_than_half_the_overlap(fold):
    """Measured with gradients of one cell's channels with respect to pixels, summed over several images."""
    config = _config(fold)
    params, encoder = initial_weights(config, 0), "compressor.encoder"
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, _SIDE, _SIDE, 3)), jnp.float32)
    params = {name: value for name, value in params.items()}
    params[f"{encoder}.out.kernel"] = params[f"{encoder}.out.kernel"] * 20

    @jax.jit
    def gradients(image):
        def cell(image):
            y = merge(config, params).compressor.encode_y(image)[:, _CELL, _CELL]
            return jnp.sum(y * jnp.arange(1.0, y.shape[-1] + 1))

        return jax.grad(cell)(image)

    seen = np.asarray(gradients(image) != 0).any(axis=(0, 3))
    for axis in (0, 1):
        [pixels] = np.nonzero(seen.any(axis=1 - axis))
        before, after = 16 * _CELL - pixels.min(), pixels.max() - (16 * _CELL + 15)
        assert (before, after) == _SEEN[fold]
        assert max(before, after) < COMPACT_OVERLAP // 2


@pytest.fixture(scope="module")
def case(compact_codec):
    """(model, weights, padded image of 448×320, its y and z)."""
    model = compact_codec.config, compact_codec.params
    image = pad_to_multiple(noise(400, 300))
    return model, image, [np.asarray(latent[0]) for latent in encode_latents(*model, image[None])]


def test_pixels_outside_the_receptive_field_change_nothing(case):
    """Changes all pixels that are 96 or more pixels away from some cells, and runs the whole encoder."""
    (config, params), image, (y, _) = case
    changed = 255 - image
    changed[64:400, 32:320] = image[64:400, 32:320]
    actual = np.asarray(encode_latents(config, params, changed[None])[0][0])
    inside = slice(10, 19), slice(8, 20)  # pixels 160 to 304, 128 to 320, where the image ends
    np.testing.assert_allclose(actual[inside], y[inside], rtol=0, atol=1e-5 * np.abs(y).max())
    assert (np.abs(actual - y)[:4] > 1e-2).any()


def test_tiles_give_the_whole_image_s_latents(case):
    model, image, whole = case
    tiled = image_latents(*model, image, tile=256)
    for expected, actual in zip(whole, tiled, strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_smaller_overlaps_would_not_do(case, monkeypatch):
    """Control: with tiles that overlap by 64 pixels, cells see the edges of tiles and the comparison fails."""
    model, image, (y, _) = case
    monkeypatch.setattr(encoding, "COMPACT_OVERLAP", 64)
    actual, _ = image_latents(*model, image, tile=256)
    assert np.abs(actual - y).max() > 1e-3 * np.abs(y).max()


def test_large_images_are_encoded_in_tiles(compact_codec, case, monkeypatch):
    """Through the codec: the same symbols, except where a latent is near a rounding boundary."""
    image = noise(400, 300)
    expected = compact_codec.read_symbols(compact_codec.compress(image))
    monkeypatch.setattr(encoding, "WHOLE_PIXELS", 400 * 300)
    monkeypatch.setattr(encoding, "TILE", 256)
    monkeypatch.setattr(encoding, "encode_latents", None)  # the whole is not made
    for actual, symbols in zip(compact_codec.read_symbols(compact_codec.compress(image)), expected, strict=True):
        assert (actual != symbols).mean() < 1e-3
