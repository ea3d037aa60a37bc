"""Canvases: which images share one, and that it changes no pixel by more than rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.codec import canvases
from cdc_jax.codec.canvases import FEW_SIZES, shared_canvases
from cdc_jax.codec.decoding import synthesize
from cdc_jax.codec.tiling import WHOLE_PIXELS

MANY = [(64 * rows, 64 * columns) for rows in range(4, 14) for columns in range(4, 14)]
sides = st.integers(1, 20).map(lambda cells: 64 * cells)


@given(st.lists(st.tuples(sides, sides), max_size=64), st.integers(1, 5))
def test_every_image_fits_its_canvas_and_none_is_larger_than_the_largest_image(sizes, steps):
    chosen = shared_canvases(sizes, steps)
    whole = [height * width for height, width in sizes if height * width <= WHOLE_PIXELS]
    for size, canvas in zip(sizes, chosen, strict=True):
        if canvas is not None:
            assert canvas[0] >= size[0] and canvas[1] >= size[1]
            assert canvas[0] * canvas[1] <= max(whole)
    assert shared_canvases(sizes, steps) == chosen


def test_few_sizes_are_decoded_as_they_are():
    few = MANY[:FEW_SIZES] * 10
    assert shared_canvases(few, 1) == [None] * len(few)
    assert any(shared_canvases(MANY[: FEW_SIZES + 1], 1))


def test_many_sizes_need_few_programs():
    programs = {canvas or size for canvas, size in zip(shared_canvases(MANY, 1), MANY, strict=True)}
    assert len(programs) <= 6


def test_more_steps_make_surplus_pixels_dearer():
    def pixels(steps):
        chosen = shared_canvases(MANY, steps)
        return sum(np.prod(canvas or size) for canvas, size in zip(chosen, MANY, strict=True))

    assert np.prod(MANY, axis=1).sum() <= pixels(100) < pixels(1)


def test_no_canvas_without_a_program_or_for_tiles():
    assert shared_canvases([*MANY, None], 0) == [None] * (len(MANY) + 1)
    chosen = shared_canvases([*MANY, (2048, 2048), None], 1)
    assert chosen[-2:] == [None, None] and any(chosen)


@pytest.mark.parametrize("kind", ["random_codec", "compact_codec"])
def test_a_folder_of_many_sizes_gives_the_pixels_of_the_files_alone(kind, request, monkeypatch):
    codec = request.getfixturevalue(kind)
    monkeypatch.setattr(canvases, "FEW_SIZES", 1)
    images = [np.random.default_rng(9).integers(0, 256, (*size, 3), np.uint8) for size in ((64, 192), (128, 100))]
    images.append(np.random.default_rng(8).integers(0, 256, (128, 192, 3), np.uint8))
    files = [codec.compress(image) for image in images]
    before = synthesize._cache_size()
    together = codec.decompress_batch(files, steps=1, gamma=0.5)
    assert synthesize._cache_size() == before + 1
    for data, image in zip(files, together, strict=True):
        alone = codec.decompress(data, steps=1, gamma=0.5)
        assert image.shape == alone.shape
        assert np.abs(image.astype(int) - alone).max() <= 1
