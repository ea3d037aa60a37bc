from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.entropy.coder import MAX_ABS_SYMBOL, EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.integer_checkerboard import anchor_mask
from cdc_jax.entropy.integer_gains import MAX_LEVEL, IntegerGains
from cdc_jax.entropy.latents import LatentModel, Latents, Pass
from cdc_jax.errors import BitstreamError, BundleError
from tests.helpers import python_decoder, python_latents
from tests.helpers.coding_weights import compact_coding_weights
from tests.helpers.summation import ShuffledCheckerboard, ShuffledSums, board_with_sums_of, with_sums_of

LEVELS = (0, 1, 9472, MAX_LEVEL - 1, MAX_LEVEL)


def _models() -> dict[str, CodingModel]:
    return {
        "all": CodingModel.build(**compact_coding_weights()),
        "one pass": CodingModel.build(**compact_coding_weights(board=False)),
        "one rate": CodingModel.build(**compact_coding_weights(anchors=1)),
        "neither": CodingModel.build(**compact_coding_weights(anchors=1, board=False)),
        "coarse": CodingModel.build(**compact_coding_weights(seed=1, gain=60.0)),
    }


@pytest.fixture(scope="module")
def models() -> dict[str, CodingModel]:
    return _models()


@pytest.fixture(scope="module", params=list(_models()))
def model(models, request) -> CodingModel:
    return models[request.param]


def _z(model: CodingModel, height: int = 2, width: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 10, (height, width, model.channels)).astype(np.int32)


def _encode(model: CodingModel, z: np.ndarray, level: int, y: np.ndarray) -> Latents:
    """Runs the passes as the encoder does: real y, rounded in quantization steps."""
    return model.latents.code(z, level, lambda step: np.rint((y - step.mean) * step.gain).astype(np.int32))


def _drawn_y(model: CodingModel, z: np.ndarray, seed: int = 0) -> np.ndarray:
    size = 4 * z.shape[0], 4 * z.shape[1], model.latent_channels
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def _coding(model: CodingModel) -> dict:
    return {name: array.tolist() for name, array in model._arrays().items()}


def _run(passes, symbols: np.ndarray) -> python_latents.Latents:
    """Runs the passes of the decoder in plain Python with given symbols."""
    flat, sent = symbols.reshape(-1).tolist(), None
    while True:
        try:
            sent = {i: flat[i] for i in passes.send(sent)}
        except StopIteration as finished:
            return finished.value


def _assert_same(actual: Latents, expected: Latents) -> None:
    for name in Latents._fields:
        assert getattr(actual, name).dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)


def test_models_differ(models):
    """Some have many scale indices; one has fewer fractional bits than the maximum."""
    z = _z(models["all"])
    indices = _encode(models["all"], z, 9472, _drawn_y(models["all"], z)).scale_index
    assert len(np.unique(indices)) > 40
    bits = {name: model.hyper_decoder.layers[2].output_bits for name, model in models.items()}
    assert bits["all"] == 16 and bits["coarse"] == 8


@pytest.mark.parametrize("level", LEVELS)
def test_encoder_and_decoder_agree(model, level):
    """The decoder gets a pass's symbols only at its positions, and noise elsewhere."""
    z = _z(model)
    coded = _encode(model, z, level, _drawn_y(model, z))
    rng = np.random.default_rng(1)

    def read(step: Pass) -> np.ndarray:
        noise = rng.integers(-1000, 1001, coded.symbols.shape).astype(np.int32)
        return coded.symbols if step.positions is None else np.where(step.positions[..., None], coded.symbols, noise)

    decoded = model.latents.code(z, level, read)
    _assert_same(decoded, coded)
    assert np.count_nonzero(coded.symbols) > coded.symbols.size / 4 and len(np.unique(coded.scale_index)) > 1


@pytest.mark.parametrize("level", LEVELS)
def test_agrees_with_python_integers(model, level):
    z = _z(model, 1, 2)
    coded = _encode(model, z, level, _drawn_y(model, z))
    expected = _run(python_latents.passes(_coding(model), z.tolist(), level), coded.symbols)
    assert coded.scale_index.reshape(-1).tolist() == expected.scale_indices
    for name, values in (("mean", expected.means), ("y_hat", expected.y_hat)):
        assert [Fraction(value) for value in getattr(coded, name).reshape(-1).tolist()] == values


def test_extreme_symbols_saturate(models):
    """With symbols of ±2²³ at the smallest gain."""
    model, z = models["coarse"], _z(models["coarse"], 1, 1)
    gains = IntegerGains(np.full_like(model.latents.gains.anchors, -(7 << 16)))
    model = replace(model, latents=replace(model.latents, gains=gains))
    symbols = np.where(np.arange(4 * 4 * 5).reshape(4, 4, 5) % 3 > 0, MAX_ABS_SYMBOL, -MAX_ABS_SYMBOL).astype(np.int32)
    coded = model.latents.code(z, 0, lambda step: symbols)
    expected = _run(python_latents.passes(_coding(model), z.tolist()), symbols)
    assert [Fraction(value) for value in coded.y_hat.reshape(-1).tolist()] == expected.y_hat
    bits = model.hyper_decoder.layers[2].output_bits
    ends = {float(-(2**23) * 2.0**-bits), float((2**23 - 1) * 2.0**-bits)}
    assert set(coded.y_hat.reshape(-1).tolist()) == ends


@pytest.mark.parametrize("level", LEVELS)
def test_the_quantization_error_is_at_most_half_a_step(model, level):
    z = _z(model)
    y = _drawn_y(model, z)
    coded = _encode(model, z, level, y)
    bits = model.hyper_decoder.layers[2].output_bits
    step = 1 / model.latents.gains.at(level, bits).gains()
    assert (np.abs(coded.y_hat - y) <= 0.5 * step + 2.0**-bits + 1e-4).all()
    assert np.abs(coded.y_hat - y).max() > 0.4 * step.max()


def _passes(model: CodingModel, z: np.ndarray) -> list[Pass]:
    y, passes = _drawn_y(model, z), []

    def keep(step: Pass) -> np.ndarray:
        passes.append(step)
        return np.rint((y - step.mean) * step.gain).astype(np.int32)

    model.latents.code(z, 9472, keep)
    return passes


def test_passes(models):
    """Checks their positions, and that the second pass's means and scales depend on the first pass's symbols."""
    z = _z(models["all"], 1, 1)
    steps = {name: _passes(model, z) for name, model in models.items()}
    counts = {"all": 2, "one pass": 1, "one rate": 2, "neither": 1, "coarse": 2}
    assert {name: len(passes) for name, passes in steps.items()} == counts
    first, second = steps["all"]
    mask = anchor_mask(4, 4)
    np.testing.assert_array_equal(first.positions, mask)
    np.testing.assert_array_equal(second.positions, ~mask)
    assert (first.mean != second.mean)[~mask].all() and (first.mean == second.mean)[mask].all()
    assert (first.scale_index != second.scale_index)[~mask].mean() > 0.5
    assert steps["one pass"][0].positions is None
    np.testing.assert_array_equal(first.mean, steps["one pass"][0].mean)
    np.testing.assert_allclose(first.gain, np.exp2(models["all"].latents.gains.at(9472, 16).log2 / 65536), rtol=1e-6)


def test_the_level_changes_scales_like_gains(models):
    """Scales are in quantization steps, so between two levels log2 of each changes by as much as log2 g."""
    model = models["one pass"]
    z, scales, by_level = _z(model), np.log2(model.scales), []
    for level in (0, MAX_LEVEL):
        index = _encode(model, z, level, _drawn_y(model, z)).scale_index
        log2_scale = np.where((index > 0) & (index < 255), scales[index], np.nan)
        by_level.append((log2_scale, model.latents.gains.at(level, 16)))
    moved = by_level[1][0] - by_level[0][0]
    expected = (by_level[1][1].log2 - by_level[0][1].log2) / 65536
    assert np.nanmax(np.abs(moved - expected)) <= 1.001 * (scales[1] - scales[0])
    assert np.isfinite(moved).mean() > 0.3 and expected.min() > 0.5


def test_a_model_of_format_1(small_model):
    z = np.random.default_rng(0).integers(-9, 10, (2, 2, 6)).astype(np.int32)
    mean, scale_index = small_model.hyper_decoder.decode(z)
    symbols, steps = np.arange(mean.size, dtype=np.int32).reshape(mean.shape), []
    coded = small_model.latents.code(z, 0, lambda step: steps.append(step) or symbols)
    _assert_same(coded, Latents(symbols, mean, symbols.astype(np.float32) + mean, scale_index))
    assert len(steps) == 1 and steps[0].gain is None and steps[0].positions is None


def test_the_order_of_summation_does_not_matter(models):
    latents = models["all"].latents
    shuffled = LatentModel(
        with_sums_of(latents.hyper_decoder, ShuffledSums),
        latents.gains,
        board_with_sums_of(latents.checkerboard, ShuffledCheckerboard),
    )
    z = _z(models["all"], 5, 4)
    y = _drawn_y(models["all"], z)
    expected = _encode(models["all"], z, 9472, y)
    _assert_same(_encode(replace(models["all"], latents=shuffled), z, 9472, y), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda latents: replace(latents, gains=None), "needs gains"),
        (lambda latents: replace(latents, gains=IntegerGains(np.zeros((2, 4), np.int32))), "4 channels"),
        (lambda latents: replace(latents, checkerboard=replace(latents.checkerboard, latent_bits=15)), "bits"),
        (lambda latents: replace(latents, checkerboard=_other_board(latents=4)), "does not fit"),
        (lambda latents: replace(latents, checkerboard=_other_board(hidden=5)), "does not fit"),
    ],
)
def test_parts_that_do_not_fit(models, change, message):
    with pytest.raises(BundleError, match=message):
        change(models["all"].latents)


def _other_board(**sizes: int):
    return CodingModel.build(**compact_coding_weights(**sizes)).latents.checkerboard


def _round_trip(model: CodingModel, z: np.ndarray, symbols: np.ndarray, level: int) -> bytes:
    coder = EntropyCoder(model)
    coded = model.latents.code(z, level, lambda step: symbols)
    stream = coder.encode(z, symbols, coded.scale_index)
    decoded = coder.decode(stream, z.shape, level)
    np.testing.assert_array_equal(decoded.z, z)
    assert decoded.level == level
    _assert_same(Latents(decoded.y, decoded.mean, decoded.y_hat, decoded.scale_index), coded)
    return stream


@pytest.mark.parametrize("level", LEVELS)
def test_streams_round_trip(model, level):
    z = _z(model)
    stream = _round_trip(model, z, _encode(model, z, level, _drawn_y(model, z)).symbols, level)
    with pytest.raises(BitstreamError):
        EntropyCoder(model).decode(stream + b"\0", z.shape, level)


@given(st.data())
def test_streams_of_any_symbols_round_trip(compact_model, data):
    symbol = st.one_of(st.integers(-4, 4), st.integers(-MAX_ABS_SYMBOL, MAX_ABS_SYMBOL))
    z = np.array(data.draw(st.lists(symbol, min_size=3, max_size=3)), np.int32).reshape(1, 1, 3)
    symbols = np.array(data.draw(st.lists(symbol, min_size=80, max_size=80)), np.int32).reshape(4, 4, 5)
    _round_trip(compact_model, z, symbols, data.draw(st.integers(0, MAX_LEVEL)))


@pytest.mark.parametrize("level", [0, 9472])
def test_another_decoder(model, level):
    """A decoder in plain Python reads streams with escapes."""
    z, rng = _z(model, 1, 2), np.random.default_rng(3)
    symbols = _encode(model, z, level, _drawn_y(model, z)).symbols
    symbols.reshape(-1)[rng.choice(symbols.size, 30, replace=False)] = np.rint(2 ** rng.uniform(4, 23, 30))
    stream, families = _round_trip(model, z, symbols, level), []
    for tables in (model.z_tables, model.y_tables):
        families.append([(int(tables.low[i]), tables[i].tolist()) for i in range(len(tables))])

    def passes(flat: list[int]):
        rows = np.array(flat).reshape(z.shape).tolist()
        return python_latents.passes(_coding(model), rows, level)

    decoded_z, decoded_y, latents = python_decoder.read_symbols(stream, *families, z.shape, passes)
    assert decoded_z == z.reshape(-1).tolist() and decoded_y == symbols.reshape(-1).tolist()
    coded = model.latents.code(z, level, lambda step: symbols)
    assert [Fraction(value) for value in coded.y_hat.reshape(-1).tolist()] == latents.y_hat


def test_another_level_reads_other_symbols(compact_model):
    """A stream cannot be read with another level."""
    z = _z(compact_model, 3, 3)
    symbols = _encode(compact_model, z, 12800, _drawn_y(compact_model, z)).symbols
    stream, coder = _round_trip(compact_model, z, symbols, 12800), EntropyCoder(compact_model)
    for level in (0, 12000, 25600):
        with pytest.raises(BitstreamError):
            coder.decode(stream, z.shape, level)


def test_the_anchors_come_first_in_the_stream(compact_model):
    """Changes at the other positions affect the end of the stream, but not its beginning."""
    z, level = _z(compact_model, 4, 4), 12800
    symbols = _encode(compact_model, z, level, _drawn_y(compact_model, z)).symbols
    mask, streams = anchor_mask(16, 16)[..., None], []
    streams = [_round_trip(compact_model, z, one, level) for one in (symbols, np.where(mask, symbols, symbols + 1))]
    same = next(i for i, (a, b) in enumerate(zip(*streams, strict=False)) if a != b)
    assert 0.3 < same / len(streams[0]) < 0.7
