"""Encoding in tiles gives the latents of the whole image, with tiles that depend only on its size."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from cdc_jax.codec import encoding
from cdc_jax.codec.encoding import encode_latents, image_latents
from cdc_jax.io.images import pad_to_multiple


@pytest.fixture(scope="module")
def latents(trained_codec, photograph):
    """(padded photograph, its y and z encoded whole, its y and z from tiles of 192 pixels)."""
    model, image = (trained_codec.config, trained_codec.params), pad_to_multiple(photograph)
    whole = [np.asarray(latent[0]) for latent in encode_latents(*model, image[None])]
    return image, whole, image_latents(*model, image, tile=192)


def test_tiles_give_the_whole_image_s_latents(latents):
    _, whole, tiled = latents
    for expected, actual in zip(whole, tiled, strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_symbols_differ_only_near_rounding_boundaries(trained_codec, latents):
    _, (y, z), (tiled_y, tiled_z) = latents
    medians = np.asarray(trained_codec.params["compressor.prior.medians"])
    z_symbols = np.rint(z - medians).astype(np.int32)
    mean, _ = trained_codec.coding.hyper_decoder.decode(z_symbols)
    for expected, actual in ((z - medians, tiled_z - medians), (y - mean, tiled_y - mean)):
        moved = np.rint(expected) != np.rint(actual)
        from_half = np.abs(np.abs(expected - np.trunc(expected)) - 0.5)
        assert (from_half[moved] <= 1e-4).all() and moved.mean() < 1e-4


def test_smaller_overlaps_would_not_do(trained_codec, latents, monkeypatch):
    """Control: with tiles that overlap by only 64 pixels, cells see the edges of tiles and the comparison fails."""
    image, (y, _), _ = latents
    monkeypatch.setattr(encoding, "OVERLAP", 64)
    actual, _ = image_latents(trained_codec.config, trained_codec.params, image, tile=192)
    assert np.abs(actual - y).max() > 1e-3 * np.abs(y).max()


def test_large_images_are_encoded_in_tiles(trained_codec, latents, monkeypatch):
    """The codec chooses tiles by the image's size; here the limit is below the photograph's."""
    image, _, (y, z) = latents
    monkeypatch.setattr(encoding, "WHOLE_PIXELS", image.shape[0] * image.shape[1] - 1)
    monkeypatch.setattr(encoding, "TILE", 192)
    monkeypatch.setattr(encoding, "encode_latents", None)  # the whole is not made
    actual = image_latents(trained_codec.config, trained_codec.params, image)
    np.testing.assert_array_equal(actual[0], y)
    np.testing.assert_array_equal(actual[1], z)


def test_the_program_of_a_tile_needs_less_memory(trained_codec):
    """Compares the programs for an image four times as wide, whole and in tiles."""

    def temporaries(width):
        shape = jax.ShapeDtypeStruct((1, 192, width, 3), np.uint8)
        return encoding._encode_y.lower(trained_codec.config, trained_codec.params, shape).compile().memory_analysis()

    assert temporaries(192).temp_size_in_bytes < 0.3 * temporaries(768).temp_size_in_bytes
