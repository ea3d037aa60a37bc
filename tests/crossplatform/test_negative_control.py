"""Control for the tests in this folder: with the networks in float32, machines disagree and files cannot be read.

Sums in opposite orders, as in two BLAS kernels, simulate two machines with float networks.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.integer_checkerboard import IntegerCheckerboard
from cdc_jax.entropy.integer_gains import MAX_LEVEL
from cdc_jax.entropy.latents import LatentModel, Latents
from cdc_jax.entropy.tables import draw_symbols
from cdc_jax.errors import BitstreamError
from tests.helpers.coding_weights import coding_weights, compact_coding_weights
from tests.helpers.summation import (
    Float32Checkerboard,
    Float32CheckerboardReversed,
    FloatNetwork,
    FloatNetworkReversed,
    ShuffledCheckerboard,
    ShuffledSums,
    board_with_sums_of,
    with_sums_of,
)

CHANNELS = 32
IMAGES, SIDE = 12, 16  # 12 · 64 · 64 · 32 scale indices: 1.6 million


@pytest.fixture(scope="module")
def model() -> CodingModel:
    return CodingModel.build(*coding_weights(CHANNELS, 3, gain=12.0))


@pytest.fixture(scope="module")
def drawn(model) -> np.ndarray:
    """Random z from the tables for several images: int32 [n, h, w, c]."""
    symbols = draw_symbols(model.z_tables, IMAGES * SIDE * SIDE)
    return symbols.reshape(IMAGES, SIDE, SIDE, CHANNELS)


def _decode(model: CodingModel, stand_in, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    net = with_sums_of(model.hyper_decoder, stand_in)
    decoded = [net.decode(z) for z in drawn]
    return np.stack([mean for mean, _ in decoded]), np.stack([index for _, index in decoded])


def test_means_and_scale_indices_differ_in_floats(model, drawn):
    mean, index = _decode(model, FloatNetwork, drawn)
    other_mean, other_index = _decode(model, FloatNetworkReversed, drawn)
    assert index.size > 1_000_000
    assert np.mean(mean != other_mean) > 0.1
    moved = int(np.count_nonzero(index != other_index))
    assert 0 < moved < index.size / 1000  # few, which is why nobody notices in time


def test_they_are_equal_in_integers(model, drawn):
    digests = {
        hashlib.sha256(b"".join(array.tobytes() for array in _decode(model, stand_in, drawn))).hexdigest()
        for stand_in in (type(model.hyper_decoder), ShuffledSums)
    }
    assert len(digests) == 1


def test_a_float_net_breaks_files(model, drawn):
    """Files that are written and read with different orders of summation give errors or other symbols."""
    writer, reader = (
        EntropyCoder(replace(model, latents=LatentModel(with_sums_of(model.hyper_decoder, order))))
        for order in (FloatNetwork, FloatNetworkReversed)
    )
    rng, broken = np.random.default_rng(0), 0
    for z in drawn:
        _, index = writer.model.hyper_decoder.decode(z)
        y = np.rint(rng.normal(size=index.shape) * model.scales[index]).astype(np.int32)
        stream = writer.encode(z, y, index)
        np.testing.assert_array_equal(writer.decode(stream, z.shape).y, y)
        try:
            broken += not np.array_equal(reader.decode(stream, z.shape).y, y)
        except BitstreamError:
            broken += 1
    assert broken > 0


@pytest.fixture(scope="module")
def model_of_every_rate() -> CodingModel:
    return CodingModel.build(**compact_coding_weights(8, 32, 16))


def _coded(model: CodingModel, board: type) -> Latents:
    """The passes of a large image, with a checkerboard whose sums are this class's."""
    latents = model.latents
    stand_in = replace(latents, checkerboard=board_with_sums_of(latents.checkerboard, board))
    z = draw_symbols(model.z_tables, 40 * 40).reshape(40, 40, model.channels)
    y = np.random.default_rng(0).normal(0, 3, (160, 160, model.latent_channels)).astype(np.float32)
    return stand_in.code(z, MAX_LEVEL, lambda step: np.rint((y - step.mean) * step.gain).astype(np.int32))


def test_a_checkerboard_in_float32_differs_too(model_of_every_rate):
    """It differs between two orders of summation, unlike in integers."""
    one, other = (_coded(model_of_every_rate, board) for board in (Float32Checkerboard, Float32CheckerboardReversed))
    assert 0 < np.count_nonzero(one.mean != other.mean)
    assert 0 < np.count_nonzero(one.scale_index != other.scale_index)
    exact, shuffled = (_coded(model_of_every_rate, board) for board in (IntegerCheckerboard, ShuffledCheckerboard))
    for found, expected in zip(shuffled, exact, strict=True):
        np.testing.assert_array_equal(found, expected)
