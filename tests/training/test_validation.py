"""Measuring validation images, with stand-ins for the programs that take minutes to compile."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_jax.codec.decoding import Synthesized
from cdc_jax.training import validation
from tests.helpers.training import tiny_config


@pytest.fixture
def measured(monkeypatch):
    """measured(*sizes): image shapes that the programs get, metrics, the first image, and what is shown of it."""
    shapes = []

    def compress(model, params, images, quality):
        shapes.append(images.shape[1:3])
        return images, [images.shape[1] * images.shape[2]], [0]

    monkeypatch.setattr(validation, "_compress", compress)
    pixels = lambda model, steps, stochastic, params, y_hat, *_: Synthesized(y_hat, None)  # noqa: E731
    monkeypatch.setattr(validation, "synthesize", pixels)

    def measure(*sizes):
        random = np.random.default_rng(0)
        images = [(str(size), random.integers(0, 256, (*size, 3)).astype(np.uint8)) for size in sizes]
        measuring = validation.Validation(tiny_config(**{"data.crop": 256}), images, {})
        assert measuring._crops.shape[1:] == (256, 256, 3)
        monkeypatch.setitem(measuring.__dict__, "_objective", lambda *_: 0.0)
        metrics, shown = measuring.measure({})
        return shapes, metrics, images[0][1], shown["original"]

    return measure


def test_images_of_many_sizes_are_measured_at_one(measured):
    shapes, metrics, first, original = measured((375, 500), (500, 333), (700, 600), (400, 400))
    assert shapes == [(320, 320)] * 4
    assert np.array_equal(original, first[27:347, 90:410])
    assert metrics["validation_bpp"] == 1 and metrics["validation_psnr_db_1"] > 90  # without padding


def test_a_single_image_is_measured_whole(measured):
    shapes, _, first, original = measured((300, 451))
    assert shapes == [(320, 512)] and np.array_equal(original, first)


def test_small_images_are_padded_to_the_smallest_size_that_is_coded(measured):
    shapes, _, first, original = measured((40, 100), (200, 150))
    assert shapes == [(64, 64)] * 2 and np.array_equal(original, first[:, 18:82])
