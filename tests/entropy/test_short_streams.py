"""Streams too short for their size: refused before anything is allocated, or where their end is passed."""

import time
import tracemalloc

import numpy as np
import pytest

from cdc_jax.entropy import part_coder
from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.errors import BitstreamError
from tests.entropy.cases import typical_symbols

CELLS = 16384 // 64


@pytest.fixture(params=["small_model", "compact_model"])
def any_coder(request) -> EntropyCoder:
    """Of format 1, of format 2."""
    return EntropyCoder(request.getfixturevalue(request.param))


def cheapest(coder: EntropyCoder, height: int, width: int):
    """Symbols that take as few bits as any: each the likeliest of its table, y's all in the table that is surest."""
    model = coder.model
    likeliest = [model.z_tables.low[i] + np.argmax(model.z_tables[i][:-1]) for i in range(model.channels)]
    surest = max(range(256), key=lambda i: model.y_tables[i].max())
    y = np.full((4 * height, 4 * width, model.latent_channels), model.y_tables.low[surest], np.int32)
    y += np.int32(np.argmax(model.y_tables[surest]))
    z = np.tile(np.array(likeliest, np.int32), (height, width, 1))
    return z, y, np.full(y.shape, surest, np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 5), (16, 16), (40, 64)])
def test_the_bound_holds_and_is_tight(any_coder, size):
    stream = any_coder.encode(*cheapest(any_coder, *size))
    assert 0 <= len(stream) - any_coder.least_bytes(*size) <= 12


@pytest.mark.parametrize("seed", range(4))
def test_no_valid_stream_is_shorter(coder, wide_coder, seed):
    for each in (coder, wide_coder):
        for size in ((1, 1), (2, 3)):
            z, y, index = typical_symbols(each, *size, seed)
            stream = each.encode(z, y, index)
            assert len(stream) >= each.least_bytes(*size)
            np.testing.assert_array_equal(each.decode(stream, z.shape).y, y)


@pytest.mark.parametrize("length", [0, 4, 30])
def test_a_short_stream_of_a_large_image(any_coder, length):
    assert any_coder.least_bytes(CELLS, CELLS) > 30
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(BitstreamError, match="too short for an image of its size"):
            any_coder.decode(bytes(length), (CELLS, CELLS, any_coder.model.channels))
        seconds, (_, peak_bytes) = time.process_time() - start, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 0.05 and peak_bytes < 100_000


def test_the_bound_of_the_largest_size_is_a_number(any_coder):
    largest = (1 << 28) // 64
    bits = any_coder._z_coder.least_bits.sum() * float(largest) ** 2
    assert any_coder.least_bytes(largest, largest) >= bits / 8 * 0.999


def test_the_end_is_noticed_where_it_is_passed(coder, monkeypatch):
    """What would come after a valid stream's first third is not decoded."""
    z, y, index = typical_symbols(coder, 40, 40)
    stream = coder.encode(z, y, index)
    monkeypatch.setattr(part_coder, "_SLICE", 100)
    asked = []
    read = part_coder.PartCoder.read
    monkeypatch.setattr(
        part_coder.PartCoder, "read", lambda self, decoder, sizes: read(self, _Counting(decoder, asked), sizes)
    )
    coder.decode(stream, z.shape)
    total = sum(asked)
    asked.clear()
    cut = stream[: len(stream) // 3]
    assert len(cut) > coder.least_bytes(40, 40)
    with pytest.raises(BitstreamError, match="ends too early"):
        coder.decode(cut, z.shape)
    assert sum(asked) < 0.9 * total  # the cheapest symbols come first


class _Counting:
    """A decoder that notes how many symbols it is asked for."""

    def __init__(self, decoder, asked: list[int]):
        self._decoder, self._asked = decoder, asked

    def decode(self, model, count: int):
        self._asked.append(count)
        return self._decoder.decode(model, count)

    def maybe_exhausted(self) -> bool:
        return self._decoder.maybe_exhausted()


@pytest.mark.parametrize("zeros", range(9))
def test_a_valid_streams_end_is_not_passed(coder, zeros, monkeypatch):
    """Looked for after every symbol, also where the last bytes are zeros that are not stored."""
    monkeypatch.setattr(part_coder, "_SLICE", 1)
    found = 0
    for seed in range(30):
        z, y, index = typical_symbols(coder, 1, 1, 100 * zeros + seed)
        stream = coder.encode(z, y, index)
        found += len(stream) % 4 == zeros % 4
        np.testing.assert_array_equal(coder.decode(stream, z.shape).y, y)
    assert found
