"""Regions of maps: the outside of an image on a canvas does not reach its inside."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.codec.decoding import sample
from cdc_jax.models.valid_region import clear_outside, inside, valid_region


def test_without_a_region_nothing_changes():
    x = jnp.ones((2, 4, 4, 3))
    assert inside(4, 4) is None and clear_outside(x) is x


def test_regions_follow_the_resolution_of_the_maps():
    with valid_region(np.array([4, 8]), np.array([8, 4]), (8, 8)):
        small, large = (clear_outside(jnp.ones((2, side, side, 1)))[..., 0] for side in (4, 16))
    assert inside(4, 4) is None
    for maps, side in ((small, 4), (large, 16)):
        expected = np.zeros((2, side, side))
        expected[0, : side // 2] = expected[1, :, : side // 2] = 1
        np.testing.assert_array_equal(maps, expected)


@pytest.mark.parametrize("kind", ["random_codec", "compact_codec"])
def test_an_image_on_a_canvas_is_the_image_alone(kind, request):
    """In a batch of two sizes, with anything outside. Without the cells, the outside does change the image."""
    codec = request.getfixturevalue(kind)
    random, channels = np.random.default_rng(0), codec.config.latent_channels
    canvas = random.normal(size=(2, 8, 12, channels)).astype(np.float32)
    cells = np.array([[4, 12], [8, 8]], np.int32)
    numbers = np.uint32(5), np.float32(0.5), np.float32(0)
    quality = np.array([0.2, 0.7], np.float32) if codec.config.variable_rate else None
    decode = functools.partial(jax.jit(sample, static_argnums=(0, 1, 2)), codec.config, 1, False, codec.params)
    together = decode(canvas, *numbers, quality, cells)
    mixed = decode(canvas, *numbers, quality)
    for index, (rows, columns) in enumerate(cells):
        own = None if quality is None else quality[index : index + 1]
        latents = canvas[index : index + 1, :rows, :columns]
        alone = np.asarray(decode(latents, *numbers, own)[0])
        region = slice(16 * rows), slice(16 * columns)
        np.testing.assert_allclose(together[index][region], alone, atol=1e-4)
        assert np.abs(mixed[index][region] - alone).max() > 1e-2
