"""Decoding with the compact model: preview, progressive decoding, batches of mixed qualities, tiles."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cdc_jax.codec import tiling
from cdc_jax.codec.image_decoder import decode_settings
from cdc_jax.codec.preview import preview
from cdc_jax.errors import BitstreamError, ConfigError
from tests.codec.test_quality import flat, noise, smooth


@pytest.fixture(scope="module")
def synthesis(compact_codec) -> np.ndarray:
    """Tᵀ, [c, 768]."""
    matrix, deviations = (compact_codec.params[f"compressor.transform.{name}"] for name in ("synthesis", "deviations"))
    return np.asarray(matrix) * np.asarray(deviations)[:, None]


def _naive(y_hat: np.ndarray, synthesis: np.ndarray) -> np.ndarray:
    """Tᵀ(ŷ) in [0, 255], not rounded, pixel by pixel in float64."""
    height, width, channels = y_hat.shape
    image = np.zeros((16 * height, 16 * width, 3))
    for row in range(16 * height):
        for column in range(16 * width):
            for color in range(3):
                weights = synthesis[:, (row % 16 * 16 + column % 16) * 3 + color].astype(np.float64)
                image[row, column, color] = np.sum(y_hat[row // 16, column // 16].astype(np.float64) * weights)
    return np.clip((image + 1) * 127.5, 0, 255)


def _assert_rounded(actual: np.ndarray, exact: np.ndarray) -> None:
    """Asserts the nearest integers; near a rounding boundary, either one."""
    assert actual.dtype == np.uint8
    assert np.abs(actual - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("quality", [0, 37.25, 100])
def test_no_steps_give_the_transform_s_image(compact_codec, synthesis, quality):
    data = compact_codec.compress(smooth(70, 90), quality=quality)
    symbols = compact_codec.decode_symbols(data)
    exact = _naive(symbols.y_hat, synthesis)
    assert exact.std() > 10
    actual = compact_codec.decompress(data, steps=0)
    assert actual.shape == (70, 90, 3)
    _assert_rounded(actual, exact[:70, :90])


def test_strips_join_without_seams(synthesis):
    """With more rows of cells than are computed at once."""
    y_hat = np.random.default_rng(0).normal(0, 0.5, (35, 2, 12)).astype(np.float32)
    _assert_rounded(preview(y_hat, synthesis), _naive(y_hat, synthesis))


def test_latents_of_any_size_clip(synthesis):
    y_hat = np.full((4, 4, 12), 2.0**23, np.float32)
    actual = preview(np.concatenate([y_hat, -y_hat]), synthesis)
    assert set(np.unique(actual)) == {0, 255}
    np.testing.assert_array_equal(actual[:64], 255 - actual[64:])


def test_a_preview_runs_no_network(compact_codec, monkeypatch):
    data = compact_codec.compress(noise(64, 64))
    monkeypatch.setattr("cdc_jax.codec.image_decoder.synthesize", None)
    monkeypatch.setattr("cdc_jax.codec.image_decoder.synthesize_in_tiles", None)
    expected = compact_codec.decompress(data, steps=0)
    for seed, gamma, tile in ((5, 2.0, None), (0, None, 192)):
        np.testing.assert_array_equal(
            compact_codec.decompress(data, steps=0, seed=seed, gamma=gamma, tile=tile), expected
        )
    [batched] = compact_codec.decompress_batch([data], steps=0)
    np.testing.assert_array_equal(batched, expected)
    [only] = compact_codec.decompress_progressively(data, steps=0)
    np.testing.assert_array_equal(only, expected)


def test_models_without_the_transform_have_no_preview(random_codec):
    data = random_codec.compress(flat(8, 8))
    calls = [
        lambda: random_codec.decompress(data, steps=0),
        lambda: next(random_codec.decompress_progressively(data, steps=0)),
        lambda: random_codec.decompress_batch([data], steps=0),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="no transform"):
            call()


@pytest.mark.parametrize("steps", [-1, 8194])
def test_steps_that_do_not_exist(compact_codec, steps):
    with pytest.raises(ConfigError, match="between 0 and 8193"):
        compact_codec.decompress(compact_codec.compress(flat(8, 8)), steps=steps)


@pytest.mark.parametrize("steps", [None, 3])
def test_progressive_decoding(compact_codec, steps):
    data = compact_codec.compress(smooth(70, 90), quality=80)
    first, *estimates = compact_codec.decompress_progressively(data, steps=steps, seed=3, gamma=0.8)
    np.testing.assert_array_equal(first, compact_codec.decompress(data, steps=0))
    assert len(estimates) == (steps or 1)
    assert all(image.shape == (70, 90, 3) and image.dtype == np.uint8 for image in estimates)
    whole = compact_codec.decompress(data, steps=steps, seed=3, gamma=0.8)
    difference = np.abs(estimates[-1].astype(int) - whole)
    assert difference.max() <= 1 and difference.mean() < 1e-3
    assert (first != whole).mean() > 0.2
    if steps:
        assert (estimates[0] != estimates[1]).any()


def test_progressive_decoding_in_tiles(compact_codec, monkeypatch):
    """An image that is too large to be decoded whole runs the same program, so the image is the same."""
    monkeypatch.setattr(tiling, "WHOLE_PIXELS", 1)
    monkeypatch.setattr(tiling, "TILE", 192)
    data = compact_codec.compress(smooth(200, 300))
    first, last = compact_codec.decompress_progressively(data)
    np.testing.assert_array_equal(last, compact_codec.decompress(data))
    assert last.shape == (200, 300, 3) and (first != last).any()


def test_a_model_without_the_transform_decodes_progressively(random_codec):
    data = random_codec.compress(smooth(64, 64))
    images = list(random_codec.decompress_progressively(data, steps=2))
    assert len(images) == 2
    assert np.abs(images[-1].astype(int) - random_codec.decompress(data, steps=2)).max() <= 1


def test_corrupt_files_have_no_preview(compact_codec):
    data = compact_codec.compress(noise(64, 64))
    with pytest.raises(BitstreamError):
        compact_codec.decompress(data[:-1], steps=0)
    with pytest.raises(BitstreamError):
        next(compact_codec.decompress_progressively(data[:-1]))


def test_a_batch_of_mixed_qualities(compact_codec):
    """Each image is decoded at its own quality, which its network receives."""
    image = smooth(64, 64)
    qualities = (0, 100, 37.25, 0, 80)
    files = [compact_codec.compress(image, quality=quality) for quality in qualities]
    files.append(compact_codec.compress(noise(70, 30), quality=10))
    for actual, data in zip(compact_codec.decompress_batch(files), files, strict=True):
        np.testing.assert_array_equal(actual, compact_codec.decompress(data))


def test_the_quality_reaches_the_network(compact_codec):
    """The same latents give another image at another quality."""
    symbols = compact_codec.decode_symbols(compact_codec.compress(smooth(64, 64), quality=20))
    settings = decode_settings(compact_codec.config, None, 0, None, 0.0)
    images = [
        compact_codec.decoder.decode(dataclasses.replace(symbols, level=level), settings, None) for level in (0, 25600)
    ]
    assert (images[0] != images[1]).any()


def test_decoding_in_tiles(compact_codec):
    """Tiles see less, so the image differs slightly; the transform's part of it is the same."""
    data = compact_codec.compress(smooth(320, 256))
    whole, tiled = compact_codec.decompress(data), compact_codec.decompress(data, tile=192)
    assert tiled.shape == (320, 256, 3)
    np.testing.assert_array_equal(tiled, compact_codec.decompress(data, tile=192))
    difference = np.abs(whole.astype(int) - tiled)
    assert 0 < difference.max() and difference.mean() < 3
