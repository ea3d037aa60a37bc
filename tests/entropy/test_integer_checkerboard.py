from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.entropy import integer_checkerboard
from cdc_jax.entropy.coder import MAX_ABS_SYMBOL
from cdc_jax.entropy.integer_checkerboard import TAPS, IntegerCheckerboard, anchor_mask, log2_magnitude
from cdc_jax.entropy.integer_export import quantize_checkerboard
from cdc_jax.entropy.integer_gains import MAX_LEVEL
from cdc_jax.entropy.integer_layer import MAX_ACTIVATION, MAX_WEIGHT, MIN_ACTIVATION
from cdc_jax.errors import BundleError
from tests.helpers import python_latents
from tests.helpers.coding_weights import compact_coding_weights
from tests.helpers.summation import Float32Checkerboard, ShuffledCheckerboard, board_with_sums_of

CHANNELS, HIDDEN = 5, 4


@pytest.fixture(scope="module")
def board(compact_model) -> IntegerCheckerboard:
    return compact_model.latents.checkerboard


def _inputs(height: int, width: int, largest: int, seed: int = 0) -> tuple:
    """Random (output, features, ŷ, symbols, level), all but the level within a magnitude."""
    rng = np.random.default_rng(seed)
    shapes = (2 * CHANNELS, HIDDEN, CHANNELS, CHANNELS)
    arrays = [rng.integers(-largest - 1, largest + 1, (height, width, c)).astype(np.int32) for c in shapes]
    return *arrays, int(rng.integers(MAX_LEVEL + 1))


def _in_python_integers(board: IntegerCheckerboard, output, features, y_hat, symbols, level) -> np.ndarray:
    names = ("anchor_kernel", "feature_kernel", "quality_kernel", "mix_bias", "rest_kernel", "rest_bias")
    coding = {name: getattr(board, name).tolist() for name in names}
    coding["fractional_bits"] = [0, 0, 0, board.latent_bits]
    coding["checkerboard_bits"] = [board.mix_weight_bits, board.mix_bits, board.rest_weight_bits]
    lists = (array.tolist() for array in (output, features, y_hat, symbols))
    return np.array(python_latents.correct(coding, *lists, level))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 4), (8, 5)])
@pytest.mark.parametrize("largest", [100, 1 << 16, MAX_ACTIVATION])
def test_agrees_with_python_integers(board, size, largest):
    inputs = _inputs(*size, largest)
    corrected = board.correct(*inputs)
    assert corrected.dtype == np.int32
    np.testing.assert_array_equal(corrected, _in_python_integers(board, *inputs))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5))
def test_agrees_with_python_integers_for_any_weights(seed, height, width):
    """With kernels that use all 18 bits, and saturation in both layers."""
    rng = np.random.default_rng(seed)

    def drawn(*shape):
        return np.clip(rng.integers(-2 * MAX_WEIGHT, 2 * MAX_WEIGHT, shape), -MAX_WEIGHT, MAX_WEIGHT).astype(np.int32)

    board = IntegerCheckerboard(
        drawn(4, 2 * CHANNELS, HIDDEN),
        drawn(HIDDEN, HIDDEN),
        drawn(HIDDEN),
        rng.integers(-(2**40), 2**40, HIDDEN),
        drawn(HIDDEN, 2 * CHANNELS),
        rng.integers(-(2**40), 2**40, 2 * CHANNELS),
        *(int(bits) for bits in (rng.integers(0, 17), rng.integers(17, 31), rng.integers(0, 17), rng.integers(17, 31))),
    )
    inputs = _inputs(height, width, int(rng.choice([1, 1000, MAX_ACTIVATION])), seed)
    np.testing.assert_array_equal(board.correct(*inputs), _in_python_integers(board, *inputs))


def test_only_anchors_are_read_and_they_do_not_change(board):
    output, features, y_hat, symbols, level = _inputs(6, 7, 1 << 16)
    mask = anchor_mask(6, 7)
    corrected = board.correct(output, features, y_hat, symbols, level)
    np.testing.assert_array_equal(corrected[mask], output[mask])
    assert (corrected[~mask] != output[~mask]).any(axis=-1).all()
    others = [np.where(mask[..., None], array, 77) for array in (y_hat, symbols)]
    np.testing.assert_array_equal(board.correct(output, features, *others, level), corrected)
    expected = np.abs(np.arange(6) - 2)[:, None] + np.abs(np.arange(7) - 2) == 1
    for changes in ((1 << 12, 0), (0, 1 << 20)):  # changes the anchor in row 2, column 2, which four positions see
        moved = [array.copy() for array in (y_hat, symbols)]
        for array, change in zip(moved, changes, strict=True):
            array[2, 2] += change
        changed = (board.correct(output, features, *moved, level) != corrected).any(axis=-1)
        np.testing.assert_array_equal(changed, expected)


def test_the_quality_affects_every_other_position(board):
    *arrays, _ = _inputs(4, 4, 1 << 16)
    lowest, highest = (board.correct(*arrays, level) for level in (0, MAX_LEVEL))
    np.testing.assert_array_equal((lowest != highest).any(axis=-1), ~anchor_mask(4, 4))


@given(st.integers(-MAX_ABS_SYMBOL, MAX_ABS_SYMBOL), st.integers(0, 16))
def test_log2_magnitude(symbol, bits):
    """Exact at powers of two, interpolated linearly between them, rounded down."""
    magnitude = log2_magnitude(np.array([symbol], np.int32), bits)
    assert magnitude.dtype == np.int32
    assert magnitude[0] == python_latents.log2_magnitude(symbol, bits)
    unit, exact = 2.0**-bits, np.log2(1 + abs(symbol))
    assert -unit - 0.0861 <= magnitude[0] * unit - exact <= 1e-9  # a chord of log2 is at most 0.0861 below it


def test_log2_magnitudes_of_powers_and_neighbors():
    symbols = np.array([0, 1, -1, 2, 3, -7, 8, MAX_ABS_SYMBOL, -MAX_ABS_SYMBOL + 1], np.int32)
    assert (log2_magnitude(symbols, 8) / 256).tolist() == [0, 1, 1, 1.5, 2, 3, 3.125, 23, 23]


def test_chunks_do_not_matter(board, monkeypatch):
    inputs = _inputs(9, 9, MAX_ACTIVATION)
    whole = board.correct(*inputs)
    for values in (1, 8 * CHANNELS * 7):
        monkeypatch.setattr(integer_checkerboard, "CHUNK_VALUES", values)
        np.testing.assert_array_equal(board.correct(*inputs), whole)


def test_the_order_of_summation_does_not_matter(board):
    inputs = _inputs(16, 16, MAX_ACTIVATION)
    shuffled = board_with_sums_of(board, ShuffledCheckerboard)
    np.testing.assert_array_equal(shuffled.correct(*inputs), board.correct(*inputs))


def test_in_float32_the_order_would_matter(board):
    """Control: the comparison above fails for the same sums in float32."""
    inputs = _inputs(16, 16, MAX_ACTIVATION)
    stand_in = board_with_sums_of(board, Float32Checkerboard)
    different = stand_in.correct(*inputs) != board.correct(*inputs)
    assert different[~anchor_mask(16, 16)].mean() > 0.1


def test_sums_just_below_the_limit_are_exact():
    """With the largest weights and inputs, and the largest bias that the bound allows."""
    channels, hidden = 60, 1
    ones = np.full((4, 2 * channels, hidden), MAX_WEIGHT, np.int32)
    ones[3, ::7] -= 12345
    taps = int(ones.astype(np.int64).sum()) + MAX_WEIGHT
    room = 2**53 - 1 - ((taps + 5) * -MIN_ACTIVATION + 2**29)
    arrays = {
        "anchor_kernel": ones,
        "feature_kernel": np.full((1, 1), MAX_WEIGHT, np.int32),
        "quality_kernel": np.array([-5], np.int32),
        "mix_bias": np.array([-room]),
        "rest_kernel": np.ones((1, 2 * channels), np.int32),
        "rest_bias": np.zeros(2 * channels, np.int64),
    }
    board = IntegerCheckerboard(**arrays, latent_bits=16, mix_weight_bits=30, mix_bits=16, rest_weight_bits=16)
    inputs = np.full((1, 8 * channels + 1), float(MIN_ACTIVATION))
    assert int(board.mix_sums(inputs)[0, 0]) == taps * MIN_ACTIVATION
    with pytest.raises(BundleError, match="2\\^53"):
        replace(board, mix_bias=np.array([-room - 1]))


@pytest.mark.parametrize(
    "changes",
    [
        {"anchor_kernel": lambda k: k[:3]},
        {"anchor_kernel": lambda k: k[:, :8]},
        {"anchor_kernel": lambda k: k[:, :9]},
        {"anchor_kernel": lambda k: k[:, :0]},
        {"anchor_kernel": lambda k: k[..., :3]},
        {"anchor_kernel": lambda k: k.reshape(-1)},
        {"anchor_kernel": lambda k: k.astype(np.int64)},
        {"anchor_kernel": lambda k: np.full_like(k, MAX_WEIGHT + 1)},
        {"anchor_kernel": lambda k: np.full_like(k, -(2**31))},
        {"feature_kernel": lambda k: k[:3]},
        {"feature_kernel": lambda k: np.full_like(k, -MAX_WEIGHT - 1)},
        {"quality_kernel": lambda k: k[:3]},
        {"quality_kernel": lambda k: k[:, None]},
        {"quality_kernel": lambda k: k.astype(np.int64)},
        {"quality_kernel": lambda k: np.full_like(k, MAX_WEIGHT + 1)},
        {"mix_bias": lambda b: b.astype(np.int32)},
        {"mix_bias": lambda b: b[:, None]},
        {"mix_bias": lambda b: b[:3]},
        {"mix_bias": lambda b: np.full_like(b, 2**53)},
        {"mix_bias": lambda b: np.full_like(b, -(2**63))},
        {"rest_kernel": lambda k: k[:, :9]},
        {"rest_kernel": lambda k: np.full_like(k, MAX_WEIGHT + 1)},
        {"rest_bias": lambda b: b[:9]},
        {"rest_bias": lambda b: np.full_like(b, -(2**63))},
        {"latent_bits": lambda _: 17},
        {"latent_bits": lambda _: -1},
        {"mix_bits": lambda _: 17},
        {"mix_weight_bits": lambda _: 0},
        {"mix_weight_bits": lambda _: 31},
        {"rest_weight_bits": lambda _: 31},
        {"mix_weight_bits": lambda _: 1, "latent_bits": lambda _: 0},
        {"mix_bits": lambda _: 0, "rest_weight_bits": lambda _: 1},
    ],
)
def test_an_inconsistent_board_is_refused(board, changes):
    with pytest.raises(BundleError, match="checkerboard|18 bits|2\\^53"):
        replace(board, **{name: change(getattr(board, name)) for name, change in changes.items()})


def _float_correction(weights: dict, features: np.ndarray, y_hat: np.ndarray, symbols, level: int) -> np.ndarray:
    """The float checkerboard at every position."""
    exponent = np.floor(np.log2(1 + np.abs(symbols.astype(np.float64))))
    magnitudes = exponent + (1 + np.abs(symbols) - 2**exponent) / 2**exponent
    inputs = np.concatenate([y_hat, magnitudes], axis=-1)
    masked = np.where(anchor_mask(*y_hat.shape[:2])[..., None], inputs, 0)
    padded = np.pad(masked, ((1, 1), (1, 1), (0, 0)))
    height, width = y_hat.shape[:2]
    mix = features @ weights["features"][0][0, 0] + weights["features"][1] + weights["anchors_bias"]
    mix = mix + level / MAX_LEVEL * weights["quality"][0][0] + weights["quality"][1]
    for row in range(3):
        for column in range(3):
            mix = mix + padded[row : row + height, column : column + width] @ weights["anchors"][row, column]
    return np.maximum(mix, 0.2 * mix) @ weights["out"][0][0, 0] + weights["out"][1]


def test_export_equals_the_float_layers_up_to_rounding():
    weights = compact_coding_weights()["checkerboard_params"]
    board, unit = quantize_checkerboard(**weights, latent_bits=16), 2.0**-16
    output, features, y_hat, symbols, level = _inputs(8, 8, 1 << 16)
    corrected = board.correct(output, features, y_hat, symbols, level) * unit
    expected = output * unit + _float_correction(weights, features * unit, y_hat * unit, symbols, level)
    odd = ~anchor_mask(8, 8)
    assert np.abs(corrected - expected)[odd].max() < 2e-4
    assert np.abs(corrected - output * unit)[odd].max() > 0.5


@pytest.mark.parametrize("gain", [1e-30, 1.0, 1000.0, 1e5])
def test_export_fits_weights_of_any_size(gain):
    weights = compact_coding_weights()["checkerboard_params"]
    board = quantize_checkerboard(**{**weights, "anchors": weights["anchors"] * np.float32(gain)}, latent_bits=12)
    kernel = weights["anchors"] * gain
    kernel = np.stack([kernel[row, column] for row, column in TAPS])
    np.testing.assert_allclose(board.anchor_kernel * 2.0**-board.mix_weight_bits, kernel, atol=2e-5 * max(1, gain))


@pytest.mark.parametrize("name", ["anchors", "anchors_bias", "features", "quality", "out"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_weights_of_a_diverged_training(name, bad):
    weights = compact_coding_weights()["checkerboard_params"]
    array = weights[name][0] if isinstance(weights[name], tuple) else weights[name]
    array.reshape(-1)[2 * CHANNELS * HIDDEN if name == "anchors" else 1] = bad  # the first tap is not used
    with pytest.raises(BundleError, match="diverged"):
        quantize_checkerboard(**weights, latent_bits=16)
