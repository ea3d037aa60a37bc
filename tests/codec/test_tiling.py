"""Geometry and weights of tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.codec.tiling import Axis
from cdc_jax.errors import ConfigError

blocks = st.integers(1, 100).map(lambda n: 64 * n)
tiles = st.integers(3, 20).map(lambda n: 64 * n)
overlaps = st.sampled_from([64, 128])


@given(blocks, tiles, overlaps)
def test_tiles_cover_the_image(length, tile, overlap):
    axis = Axis(length, tile, overlap)
    assert axis.spans[0][0] == 0 and axis.spans[-1][1] == length
    (size,) = {last - first for first, last in axis.spans}
    assert size % 64 == 0 and size <= tile
    count = len(axis.spans)
    assert count * (size - overlap) + overlap < length + 64 * count  # no longer than necessary for this number of tiles
    for before, after in zip(axis.spans, axis.spans[1:], strict=False):
        assert before[0] < after[0] and before[1] - after[0] >= overlap
    assert all(first % 64 == 0 for first, _ in axis.spans)
    assert len(axis.spans) == max(1, -(-(length - overlap) // (tile - overlap)))  # the smallest number


@given(blocks, tiles, overlaps)
def test_cores_divide_the_image(length, tile, overlap):
    axis = Axis(length, tile, overlap)
    assert [last for _, last in axis.cores[:-1]] == [first for first, _ in axis.cores[1:]]
    for (first, last), (start, end) in zip(axis.cores, axis.spans, strict=True):
        assert first % 16 == 0
        assert first == start == 0 or first - start >= overlap // 2
        assert last == end == length or end - last >= overlap // 2


@given(blocks, tiles, overlaps)
def test_weights_sum_to_one_and_fade(length, tile, overlap):
    axis = Axis(length, tile, overlap)
    total = np.zeros(length)
    for (first, last), weight in zip(axis.spans, axis.weights, strict=True):
        assert weight.dtype == np.float32 and (weight >= 0).all()
        total[first:last] += weight
        margin = overlap // 4
        assert first == 0 or (weight[:margin] == 0).all()
        assert last == length or (weight[-margin:] == 0).all()
        assert np.abs(np.diff(weight)).max(initial=0) <= 2 / overlap + 1e-6
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("tile", [64, 100, 128])
def test_invalid_tiles(tile):
    with pytest.raises(ConfigError, match="multiple of 64"):
        Axis(640, tile, 128)
