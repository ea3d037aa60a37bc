import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_jax.entropy.coder import MAX_ABS_SYMBOL, EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.part_coder import length_counts
from cdc_jax.entropy.tables import TOTAL_COUNT, Tables, draw_symbols
from tests.entropy.cases import typical_symbols
from tests.helpers import python_decoder


def _assert_round_trip(coder: EntropyCoder, z, y, scale_index) -> bytes:
    stream = coder.encode(z, y, scale_index)
    decoded = coder.decode(stream, z.shape)
    for name, expected in (("z", z), ("y", y), ("scale_index", scale_index)):
        found = getattr(decoded, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, err_msg=name)
    np.testing.assert_array_equal(decoded.mean, coder.model.hyper_decoder.decode(z)[0])
    return stream


def _python_decode(model: CodingModel, stream: bytes, shape) -> tuple[np.ndarray, np.ndarray]:
    families = [
        [(int(tables.low[i]), tables[i].tolist()) for i in range(len(tables))]
        for tables in (model.z_tables, model.y_tables)
    ]

    def passes(z: list[int]) -> python_decoder.Passes:
        yield dict(enumerate(model.hyper_decoder.decode(np.array(z, np.int32).reshape(shape))[1].reshape(-1).tolist()))

    z, y, _ = python_decoder.read_symbols(stream, *families, shape, passes)
    return np.array(z).reshape(shape), np.array(y).reshape(4 * shape[0], 4 * shape[1], shape[2])


def _with_outliers(symbols: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    symbols = symbols.copy().reshape(-1)
    places = rng.choice(symbols.size, min(symbols.size, 60), replace=False)
    sizes = 2.0 ** rng.uniform(0, 23, len(places))
    symbols[places] = np.where(rng.random(len(places)) < 0.5, -sizes, sizes).astype(np.int32)
    return symbols


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2), (5, 7)])
def test_round_trip(coder, wide_coder, shape):
    for each in (coder, wide_coder):
        _assert_round_trip(each, *typical_symbols(each, *shape))


@pytest.mark.parametrize("outliers", [False, True])
def test_another_decoder(coder, wide_coder, outliers):
    for each in (coder, wide_coder):
        z, y, scale_index = typical_symbols(each, 2, 3)
        if outliers:
            z = _with_outliers(z, 1).reshape(z.shape)
            _, scale_index = each.model.hyper_decoder.decode(z)
            y = _with_outliers(y, 2).reshape(y.shape)
        stream = _assert_round_trip(each, z, y, scale_index)
        python_z, python_y = _python_decode(each.model, stream, z.shape)
        np.testing.assert_array_equal(python_z, z)
        np.testing.assert_array_equal(python_y, y)


@pytest.mark.parametrize("value", [MAX_ABS_SYMBOL, -MAX_ABS_SYMBOL, 0, 1, -4096, 5000])
def test_constant_symbols(coder, value):
    z = np.full((2, 1, 6), value, np.int32)
    _, scale_index = coder.model.hyper_decoder.decode(z)
    _assert_round_trip(coder, z, np.full(scale_index.shape, -value, np.int32), scale_index)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_round_trip_of_any_symbols(coder, data):
    symbol = st.one_of(st.integers(-4, 4), st.integers(-MAX_ABS_SYMBOL, MAX_ABS_SYMBOL))
    z = np.array(data.draw(st.lists(symbol, min_size=6, max_size=6)), np.int32).reshape(1, 1, 6)
    _, scale_index = coder.model.hyper_decoder.decode(z)
    y = np.array(data.draw(st.lists(symbol, min_size=96, max_size=96)), np.int32).reshape(scale_index.shape)
    _assert_round_trip(coder, z, y, scale_index)


def test_every_edge_of_every_table(coder):
    """In every table, codes the last symbol inside and the first outside on both sides."""
    tables = coder.model.y_tables
    high = tables.low + tables.sizes - 1
    edges = np.stack([tables.low, tables.low - 1, high, high + 1, tables.low - 2, high + 2], axis=1).reshape(-1)
    sizes = np.full(256, 6)
    part = coder._y_coder.to_entries(edges.astype(np.int32), sizes)
    assert part.excess.tolist() == [-1, 1, -2, 2] * 256
    np.testing.assert_array_equal(coder._y_coder.to_symbols(part), edges)


def _interval(parts) -> tuple[int, int, int]:
    """Encodes (counts, entry) pairs in Python's integers; returns (start, size, bits) of the final interval."""
    start, size, bits = 0, 2**64 - 1, 64
    for counts, entry in parts:
        scale = size >> 24
        start, size = start + scale * int(np.sum(counts[:entry])), scale * int(counts[entry])
        if size < 2**32:
            start, size, bits = start << 32, size << 32, bits + 32
    return start, size, bits


def test_streams_have_minimal_length(coder):
    """Compared with an encoder in Python's integers, the stream is in its interval and no shorter one is."""
    model, lengths = coder.model, []
    for seed in range(60):
        z, y, scale_index = typical_symbols(coder, 1, 1, seed)
        z, y = np.clip(z, -1, 1), np.clip(y, -1, 1)  # no escapes
        _, scale_index = model.hyper_decoder.decode(z)
        stream = coder.encode(z, y, scale_index)
        flat = scale_index.reshape(-1)
        order = np.argsort(flat, kind="stable")
        pairs = [(model.z_tables[c], int(z[0, 0, c] - model.z_tables.low[c])) for c in range(6)]
        pairs += [(model.y_tables[flat[i]], int(y.reshape(-1)[i] - model.y_tables.low[flat[i]])) for i in order]
        start, size, bits = _interval(pairs)
        assert start <= int.from_bytes(stream, "big") << (bits - 8 * len(stream)) < start + size
        shorter = bits - 8 * (len(stream) - 1)
        assert shorter > 64 or -(-start >> shorter) << shorter >= start + size
        lengths.append(8 * len(stream) - sum(coder.part_bits(z, y, scale_index)))
    assert 0 <= min(lengths) + 8 and max(lengths) <= 9 and np.mean(lengths) < 5


def test_carries_reach_earlier_words(coder):
    """For intervals that cross a word's boundary, the shortest stream is often above the sealed one."""
    counts = np.array([TOTAL_COUNT - 2, 1, 1])
    one = Tables(np.zeros(256, np.int32), np.arange(0, 769, 3, dtype=np.int32), np.tile(counts, 256).astype(np.int32))
    skewed = EntropyCoder(replace(coder.model, y_tables=one))
    rng = np.random.default_rng(0)
    z = np.zeros((1, 1, 6), np.int32)
    _, scale_index = coder.model.hyper_decoder.decode(z)
    for _ in range(200):
        y = (rng.random(scale_index.shape) < 0.03).astype(np.int32)
        _assert_round_trip(skewed, z, y, scale_index)


def test_a_stream_of_zeros_is_empty(coder):
    """With tables whose first entry is almost certain, the shortest stream is empty, and it decodes."""
    counts = np.tile(np.array([TOTAL_COUNT - 1, 1], np.int32), 256)
    certain = Tables(np.zeros(256, np.int32), np.arange(0, 513, 2, dtype=np.int32), counts)
    for_z = Tables(certain.low[:6], certain.offsets[:7], counts[:12])
    sure = EntropyCoder(replace(coder.model, z_tables=for_z, y_tables=certain))
    z = np.zeros((2, 2, 6), np.int32)
    _, scale_index = coder.model.hyper_decoder.decode(z)
    y = np.zeros(scale_index.shape, np.int32)
    assert _assert_round_trip(sure, z, y, scale_index) == b""
    y[-1, -1, -1] = 7
    assert 3 <= len(_assert_round_trip(sure, z, y, scale_index)) <= 8


def test_rate_is_the_sum_of_the_tables(wide_coder):
    z, y, scale_index = typical_symbols(wide_coder, 4, 5)
    y[0, 0, :3] = [100_000, -100_000, 2_000_000]
    model, bits = wide_coder.model, 0.0
    for tables, symbols, chosen in ((model.z_tables, z, np.arange(4)), (model.y_tables, y, scale_index)):
        for symbol, i in zip(symbols.reshape(-1), np.broadcast_to(chosen, symbols.shape).reshape(-1), strict=True):
            entry = int(symbol) - int(tables.low[i])
            size = int(tables.sizes[i])
            inside = 0 <= entry < size
            bits -= np.log2(tables[i][entry if inside else size] / TOTAL_COUNT)
            if not inside:
                length = int(-entry if entry < 0 else entry - size + 1).bit_length()
                bits += length - np.log2(length_counts()[length - 1] / TOTAL_COUNT)
    assert sum(wide_coder.part_bits(z, y, scale_index)) == pytest.approx(bits, rel=1e-12)
    assert abs(8 * len(wide_coder.encode(z, y, scale_index)) - bits) < 10 + 1e-4 * bits


def test_table_of_lengths():
    counts = length_counts()
    assert counts.sum() == TOTAL_COUNT and len(counts) == 24 and counts.min() >= 1
    assert counts[0] == TOTAL_COUNT // 4 and counts[1] == TOTAL_COUNT * 3 // 16


def test_one_coder_in_many_threads(wide_coder):
    images = [typical_symbols(wide_coder, 6, 6, seed) for seed in range(16)]
    streams = [wide_coder.encode(*image) for image in images]

    def work(i: int) -> bool:
        z, y, scale_index = images[i % 16]
        same = wide_coder.encode(z, y, scale_index) == streams[i % 16]
        return same and np.array_equal(wide_coder.decode(streams[i % 16], z.shape).y, y)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


def _normal_pmf(symbol: np.ndarray, scale: np.ndarray) -> np.ndarray:
    tail = np.vectorize(lambda t: 0.5 * math.erfc(t / math.sqrt(2)))
    return tail((np.abs(symbol) - 0.5) / scale) - tail((np.abs(symbol) + 0.5) / scale)


def test_stream_size_against_the_original_program(golden_weights):
    """The stream of the golden symbols is only slightly larger than the float model's rate."""
    prior, layers, arrays = golden_weights
    coder = EntropyCoder(CodingModel.build(prior, layers))
    for image in range(2):
        latent, hyper = (arrays[name][image].transpose(1, 2, 0) for name in ("q_latent", "q_hyper_latent"))
        z = np.rint(hyper - prior["medians"]).astype(np.int32)
        mean, scale_index = coder.model.hyper_decoder.decode(z)
        y = np.rint(latent - arrays["mean"][image].transpose(1, 2, 0)).astype(np.int32)
        stream = _assert_round_trip(coder, z, y, scale_index)
        float_bits = float(arrays["bpp_eval"].reshape(-1)[image]) * 64 * 128
        assert sum(coder.part_bits(z, y, scale_index)) < 1.001 * float_bits
        # The float model bounds outliers at 30 bits; here they take fewer. Without outliers both cost the same.
        scale = arrays["scale"][image].transpose(1, 2, 0)
        expected = np.where(_normal_pmf(y, scale) > 1e-6, y, 0)
        assert (expected != y).sum() < 50
        bits = -np.log2(arrays["hyper_likelihood"][image]).sum() - np.log2(_normal_pmf(expected, scale)).sum()
        assert 0.999 * bits < sum(coder.part_bits(z, expected, scale_index)) < 1.001 * bits
        assert len(stream) <= float_bits / 8 * 1.001 + 2
        assert np.abs(mean - arrays["mean"][image].transpose(1, 2, 0)).max() < 1e-3


def test_streams_never_change(wide_coder):
    """Golden: every later version decodes the stream, and encodes its symbols to the same bytes."""
    model = wide_coder.model
    z = draw_symbols(model.z_tables, 6).reshape(2, 3, 4)
    z[1, 2, 3] = -70_000
    _, scale_index = model.hyper_decoder.decode(z)
    y = draw_symbols(model.y_tables, scale_index.size)[np.arange(scale_index.size), scale_index.reshape(-1)]
    y[[5, 50]] = 90_000, -3_000
    stream = _assert_round_trip(wide_coder, z, y.reshape(scale_index.shape), scale_index)
    assert model.fingerprint.hex() == "95a0764f"
    assert hashlib.sha256(stream).hexdigest()[:16] == "66461d2aaf44d2de"
    assert stream[:12].hex() == "de2754789bc7557757b01fee" and len(stream) == 235
