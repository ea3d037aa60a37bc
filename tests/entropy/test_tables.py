import hashlib
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cdc_jax.entropy.tables import (
    ESCAPE_COUNT,
    MAX_EXTENT,
    TOTAL_COUNT,
    Tables,
    draw_symbols,
    factorized_tables,
    gaussian_tables,
    integer_counts,
    scale_table,
)
from cdc_jax.errors import BundleError


@pytest.fixture(scope="module")
def y_tables() -> Tables:
    return gaussian_tables(scale_table())


def _upper_tail(t: float) -> float:
    return 0.5 * math.erfc(t / math.sqrt(2))


def _gaussian_pmf(scale: float, symbols: np.ndarray) -> np.ndarray:
    distance = np.abs(symbols)
    return np.array([_upper_tail((d - 0.5) / scale) - _upper_tail((d + 0.5) / scale) for d in distance])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _prior_cdf(prior: dict, position: np.ndarray) -> np.ndarray:
    """P(z < position + median) under the deep factorized prior, in plain NumPy: [n] to [c, n]."""
    hidden = (position[None, :] + prior["medians"].astype(np.float64)[:, None])[:, None, :]
    for k in range(4):
        weight = np.log1p(np.exp(prior["weights"][k].astype(np.float64)))
        hidden = np.einsum("cij,cin->cjn", weight, hidden) + prior["biases"][k][:, :, None]
        if k < 3:
            hidden = hidden + np.tanh(prior["gains"][k].astype(np.float64))[:, :, None] * np.tanh(hidden)
    return _sigmoid(hidden[:, 0])


def test_scales():
    scales = scale_table()
    assert scales.shape == (256,) and scales[0] == 0.1 and scales[-1] == 256.0
    np.testing.assert_allclose(scales[1:] / scales[:-1], 2560 ** (1 / 255), rtol=1e-14)


def test_gaussian_tables_are_valid(y_tables):
    y_tables.validate("y", 256)
    for scale, low, counts in zip(scale_table(), y_tables.low, map(y_tables.__getitem__, range(256)), strict=True):
        size = len(counts) - 1
        assert size == 1 - 2 * low  # symmetric about 0
        assert np.all(np.abs(counts[:size] - counts[:size][::-1]) <= 1)
        assert 2 * _upper_tail((0.5 - low) / scale) <= 2.0**-24 * 1.001
        pmf = _gaussian_pmf(scale, np.arange(low, low + size))
        assert counts[-1] >= ESCAPE_COUNT
        assert np.all(np.abs(counts[:size] - pmf / pmf.sum() * (TOTAL_COUNT - counts[-1])) <= 3)


def test_cost_over_the_ideal_rate(y_tables):
    """The rate of Gaussian symbols under the table of the nearest scale, compared with their entropy."""
    scales = scale_table()
    midpoints = np.sqrt(scales[1:] * scales[:-1])
    ideal_bits, table_bits = [], []
    for scale in np.exp(np.random.default_rng(0).uniform(np.log(0.1), np.log(256), 300)):
        index = np.searchsorted(midpoints, scale, side="right")
        low, counts = y_tables.low[index], y_tables[index]
        all_symbols = np.arange(-int(8 * scale) - 2, int(8 * scale) + 3)
        everything = _gaussian_pmf(scale, all_symbols)
        everything = everything[everything > 0]
        ideal_bits.append(-np.sum(everything * np.log2(everything)))
        inside = _gaussian_pmf(scale, np.arange(low, low + len(counts) - 1))
        escape_bits = 24 - np.log2(counts[-1]) + 8  # and 8 bits for the value
        bits = 24 - np.log2(counts)
        table_bits.append(inside @ bits[:-1] + 2 * _upper_tail((0.5 - low) / scale) * escape_bits)
    ideal_bits, table_bits = np.array(ideal_bits), np.array(table_bits)
    assert np.all(table_bits > ideal_bits - 1e-9)
    assert table_bits.sum() / ideal_bits.sum() - 1 < 0.0005
    small = ideal_bits < 0.5
    assert small.sum() > 20
    assert table_bits[small].sum() / ideal_bits[small].sum() - 1 < 0.0005
    assert np.max(table_bits - ideal_bits) < 5e-4  # bits a symbol, at any scale


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 30), min_size=2, max_size=60))
@example([0.0, 23.4375])  # 1.48 counts: 2 costs slightly less than 1
def test_integer_counts_are_nearly_optimal(exponents):
    pmf = 2.0 ** -np.array(exponents)
    pmf = pmf / pmf.sum()
    counts = integer_counts(pmf)
    assert counts.sum() == TOTAL_COUNT and counts.min() >= 1 and counts[-1] >= ESCAPE_COUNT
    # Moving a single count gains nothing, and the cost is convex, so no move does. Rounding to the nearest count
    # deviates from that by (1.5 - 1 / ln 2) / 2^24 = 3.4e-9 bits at most: between 1 and 2 counts.
    gain = pmf * np.log2((counts + 1) / counts)
    least = np.where(np.arange(len(pmf)) < len(pmf) - 1, 1, ESCAPE_COUNT)
    loss = np.where(counts > least, pmf * np.log2(counts / np.maximum(counts - 1, 0.5)), np.inf)
    assert gain.max() <= loss.min() * (1 + 1e-6) + 4e-9


def test_integer_counts_of_a_point_and_of_many_rare_symbols():
    np.testing.assert_array_equal(integer_counts(np.array([1.0, 0.0])), [TOTAL_COUNT - ESCAPE_COUNT, ESCAPE_COUNT])
    pmf = np.full(5000, 1e-9)
    pmf[2500] = 1 - 4999e-9
    counts = integer_counts(pmf)
    assert counts[2500] == TOTAL_COUNT - 4998 - ESCAPE_COUNT and counts[-1] == ESCAPE_COUNT
    assert np.all(np.delete(counts, [2500, 4999]) == 1)


def test_factorized_tables_follow_the_prior(coding_weights):
    prior, _ = coding_weights(12)
    tables = factorized_tables(prior)
    tables.validate("z", 12)
    for c in range(12):
        counts, low = tables[c], tables.low[c]
        edges = np.arange(low, low + len(counts)) - 0.5
        cdf = _prior_cdf(prior, edges)[c]
        pmf, rest = np.diff(cdf), TOTAL_COUNT - counts[-1]
        assert ESCAPE_COUNT <= counts[-1] < 2 * ESCAPE_COUNT
        np.testing.assert_allclose(counts[:-1], pmf / pmf.sum() * rest, atol=3)
        assert cdf[0] <= 2.0**-25 * 1.001 and 1 - cdf[-1] <= 2.0**-25 * 1.001
        assert 3 <= len(counts) < 2 * MAX_EXTENT


def test_factorized_tables_cost_almost_nothing(coding_weights):
    prior, _ = coding_weights(12)
    tables = factorized_tables(prior)
    positions = np.arange(-3000, 3001)
    pmf = np.diff(_prior_cdf(prior, np.arange(-3000, 3002) - 0.5), axis=1)
    for c in range(12):
        p = pmf[c]
        ideal_bits = -np.sum(p[p > 0] * np.log2(p[p > 0]))
        bits = 24 - np.log2(tables[c].astype(np.float64))
        entry = np.clip(positions - tables.low[c], -1, len(bits) - 1)  # -1 and the last: the escape
        escape_bits = 10 * ((entry < 0) | (entry == len(bits) - 1))
        extra_bits = p @ (bits[entry] + escape_bits) - ideal_bits
        assert -1e-9 < extra_bits < 3e-5  # the escape's share, 2^-16 / ln 2 = 2.2e-5, and rounding


def test_rate_agrees_with_the_original_program(golden_weights):
    prior, _, arrays = golden_weights
    tables = factorized_tables(prior)
    symbols = np.rint(arrays["q_hyper_latent"] - prior["medians"][None, :, None, None]).astype(int)
    bits = 0.0
    for c in range(len(tables)):
        bits += np.sum(24 - np.log2(tables[c][symbols[:, c] - tables.low[c]]))
    assert bits == pytest.approx(-np.log2(arrays["hyper_likelihood"]).sum(), rel=1e-5)


def test_a_very_wide_prior_stays_bounded(coding_weights):
    prior, _ = coding_weights(3)
    prior["weights"][0] = prior["weights"][0] - np.float32(12)  # softplus: thousands of times wider
    tables = factorized_tables(prior)
    tables.validate("z", 3)
    assert np.all(tables.low == -MAX_EXTENT) and np.all(tables.sizes == 2 * MAX_EXTENT + 1)
    assert all(tables[c][-1] > TOTAL_COUNT // 10 for c in range(3))  # the escape has the probability outside the table


@pytest.mark.parametrize("shift", [-1e5, 1e5])
def test_a_prior_far_from_its_median_is_still_a_table(coding_weights, shift):
    prior, _ = coding_weights(2)
    prior["medians"] = prior["medians"] + np.float32(shift)
    tables = factorized_tables(prior)
    tables.validate("z", 2)
    assert all(tables[c][-1] > TOTAL_COUNT // 2 for c in range(2))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_parameters_still_give_tables(coding_weights, sign):
    prior, _ = coding_weights(2)
    for name in ("weights", "biases", "gains"):
        prior[name] = [np.full_like(array, 3e38 * sign) for array in prior[name]]
    factorized_tables(prior).validate("z", 2)


def _invalid_priors():
    def drop_gain(prior):
        prior["gains"] = prior["gains"][:2]

    def drop_medians(prior):
        del prior["medians"]

    def double(prior):
        prior["biases"][1] = prior["biases"][1].astype(np.float64)

    def shape(prior):
        prior["weights"][1] = prior["weights"][1][:, :2]

    def nan(prior):
        prior["weights"][2][0, 0, 0] = np.nan

    def no_channels(prior):
        prior["medians"] = prior["medians"][:0]

    return [drop_gain, drop_medians, double, shape, nan, no_channels]


@pytest.mark.parametrize("damage", _invalid_priors(), ids=lambda f: f.__name__)
def test_bad_prior_parameters(coding_weights, damage):
    prior, _ = coding_weights(2)
    damage(prior)
    with pytest.raises(BundleError, match="prior"):
        factorized_tables(prior)


def _int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    "tables",
    [
        Tables(_int32(0), _int32(0, 2), _int32(TOTAL_COUNT, 0)),
        Tables(_int32(0), _int32(0, 2), _int32(TOTAL_COUNT - 1, 2)),
        Tables(_int32(0), _int32(0, 1), _int32(TOTAL_COUNT)),
        Tables(_int32(0), _int32(0, 3), _int32(TOTAL_COUNT - 1, 1)),
        Tables(_int32(0), _int32(1, 2), _int32(TOTAL_COUNT - 1, 1)),
        Tables(_int32(1 << 20), _int32(0, 2), _int32(TOTAL_COUNT - 1, 1)),
        Tables(_int32(-(2**31)), _int32(0, 2), _int32(TOTAL_COUNT - 1, 1)),
        Tables(_int32(0, 0), _int32(0, 2, 4), _int32(TOTAL_COUNT - 1, 1, TOTAL_COUNT - 1, 1)),
        Tables(_int32(0), _int32(0, 2), np.array([TOTAL_COUNT - 1, 1])),
        Tables(_int32(0), _int32(0, 2), _int32(TOTAL_COUNT - 1, 1).reshape(1, 2)),
    ],
)
def test_validation_refuses(tables):
    with pytest.raises(BundleError, match="z table"):
        tables.validate("z", 1)


def test_drawn_symbols_follow_the_tables(y_tables):
    symbols = draw_symbols(y_tables, 4000)
    assert symbols.dtype == np.int32 and symbols.shape == (4000, 256)
    np.testing.assert_allclose(symbols[:, 60:].std(axis=0), np.sqrt(scale_table()[60:] ** 2 + 1 / 12), rtol=0.06)
    assert np.all(np.abs(symbols) <= -y_tables.low)
    np.testing.assert_array_equal(symbols, draw_symbols(y_tables, 4000))


def test_y_tables_never_change(y_tables):
    """Golden: these tables are in every bundle, and files depend on them."""
    arrays = y_tables.low, y_tables.offsets, y_tables.counts
    digest = hashlib.sha256(b"".join(array.astype("<i4").tobytes() for array in arrays)).hexdigest()
    assert digest.startswith("a05ce0126abe0814")
    assert draw_symbols(y_tables, 2)[1, 100:108].tolist() == [-1, 0, 2, 1, 0, -2, -1, 1]
