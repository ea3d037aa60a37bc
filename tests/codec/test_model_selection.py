"""The choice of model and quality is within the limit and close to it, and needs few files and few decodings."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest

from cdc_jax.codec.model_selection import Target, choose
from cdc_jax.errors import CdcError
from tests.evaluation.fakes import FakeBundles

IMAGE = np.random.default_rng(0).integers(60, 190, (64, 96, 3)).astype(np.uint8)


class EveryRate:
    """A codec whose file size and PSNR are given functions of the quality."""

    def __init__(self, size, psnr_db=None):
        self.config = types.SimpleNamespace(variable_rate=True)
        self._size, self._psnr_db = size, psnr_db
        self.qualities, self.analyzed, self.decoded = [], 0, []

    def analyze(self, image):
        self.analyzed += 1
        return image

    def write(self, latents, *, quality):
        self.qualities.append(quality)
        data = np.zeros(int(self._size(quality)), np.uint8)
        data[:8] = np.frombuffer(np.float64(quality).tobytes(), np.uint8)
        return data.tobytes()

    def decompress(self, data, **settings):
        self.decoded.append(settings)
        error = 255 * 10 ** (-self._psnr_db(quality_of(data)) / 20)
        # The pixels have two different errors, in the proportion that gives the mean square exactly.
        low = math.floor(error)
        share = (error**2 - low**2) / ((low + 1) ** 2 - low**2)
        errors = np.full(IMAGE.size, low)
        errors[: round(share * IMAGE.size)] += 1
        return (IMAGE.astype(int) + errors.reshape(IMAGE.shape)).astype(np.uint8)


def quality_of(data):
    return float(np.frombuffer(data[:8], np.float64)[0])


SIZES = {
    "a rate that doubles and doubles": lambda q: 2000 * 30 ** (q / 100),
    "as much for every quality": lambda q: 2000 + 580 * q,
    "most at the end": lambda q: 2000 + 58000 * (q / 100) ** 4,
    "most in the middle": lambda q: 2000 + 58000 / (1 + math.exp((50 - q) / 5)),
}


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.77, 0.999])
@pytest.mark.parametrize("curve", SIZES)
def test_a_size_is_used_up_in_few_attempts(curve, share):
    size = SIZES[curve]
    limit = round(size(0) + share * (size(100) - size(0)))
    codec = EveryRate(size)
    choice = choose(["one"], lambda _: codec, IMAGE, Target(file_bytes=limit))
    assert 0.99 * limit <= len(choice.data) <= limit
    assert codec.analyzed == 1 and len(codec.qualities) <= 16
    assert choice.model == f"one, quality {quality_of(choice.data):.2f}"
    assert choice.reason == f"{8 * len(choice.data) / (64 * 96):.4f} bpp"


def test_a_target_in_bits_per_pixel():
    size = SIZES["a rate that doubles and doubles"]
    by_bytes = choose(["one"], lambda _: EveryRate(size), IMAGE, Target(file_bytes=9000))
    by_bpp = choose(["one"], lambda _: EveryRate(size), IMAGE, Target(bpp=9000 * 8 / (64 * 96)))
    assert by_bpp == by_bytes


STEPS = [lambda q: 60 + 3 * q, lambda q: 60 + 2000 * (q // 10), lambda q: 60 + 90000 * (q > 73)]


@pytest.mark.parametrize("curve", STEPS)
def test_sizes_with_steps_end_at_the_last_level_that_fits(curve):
    """For small files and curves that jump over the limit, no file comes close to it, but the search ends."""
    for limit in (100, 333):
        codec = EveryRate(curve)
        data = choose(["one"], lambda _, codec=codec: codec, IMAGE, Target(file_bytes=limit)).data
        assert len(data) <= limit and (len(data) >= 0.99 * limit or curve(quality_of(data) + 1 / 256) > limit)
        assert len(codec.qualities) <= 32


def test_the_ends_of_the_range():
    size = SIZES["as much for every quality"]
    for limit, quality in ((2000, 0), (60000, 100), (10**9, 100)):
        codec = EveryRate(size)
        choice = choose(["one"], lambda _, codec=codec: codec, IMAGE, Target(file_bytes=limit))
        assert quality_of(choice.data) == quality and codec.qualities == [0, 100]
        assert "bpp" in choice.reason
    with pytest.raises(CdcError, match="1999 bytes or less; the nearest is one, quality 0.00 with 2000 bytes"):
        choose(["one"], lambda _: EveryRate(size), IMAGE, Target(file_bytes=1999))


PSNRS = [
    lambda q: 25 + q / 8,
    lambda q: 25 + 12.5 * (q / 100) ** 0.7,
    lambda q: 24.9 + 12.6 * (1 - math.exp(-q / 20)),
]


@pytest.mark.parametrize("wanted", [25.01, 28.5, 33, 37.4])
@pytest.mark.parametrize("curve", PSNRS)
def test_a_psnr_is_reached_in_few_decodes(curve, wanted):
    codec = EveryRate(SIZES["a rate that doubles and doubles"], curve)
    target = Target(min_psnr_db=wanted, steps=7, seed=3, gamma=0.5)
    choice = choose(["one"], lambda _: codec, IMAGE, target)
    assert wanted - 1e-3 <= curve(quality_of(choice.data)) <= wanted + 0.02
    assert codec.analyzed == 1 and len(codec.decoded) == len(codec.qualities) <= 14
    assert codec.decoded[0] == {"steps": 7, "seed": 3, "gamma": 0.5}
    assert choice.reason.endswith(" dB") and float(choice.reason.split()[0]) >= wanted - 0.005


def test_a_psnr_out_of_range():
    def codec(_):
        return EveryRate(SIZES["as much for every quality"], lambda q: 25 + q / 8)

    assert quality_of(choose(["one"], codec, IMAGE, Target(min_psnr_db=20)).data) == 0
    with pytest.raises(CdcError, match="No model reaches 40 dB; the nearest is one, quality 100.00 with 37.50 dB"):
        choose(["one"], codec, IMAGE, Target(min_psnr_db=40))


# --- several models ---------------------------------------------------------------------------------------------------


def test_the_best_of_several_models_of_every_rate():
    size = SIZES["a rate that doubles and doubles"]
    models = {
        "small": lambda: EveryRate(lambda q: size(q) / 10, lambda q: 20 + q / 10),
        "large": lambda: EveryRate(size, lambda q: 25 + q / 8),
        "larger": lambda: EveryRate(lambda q: 2 * size(q), lambda q: 25 + q / 8),
    }

    def load(name):
        return models[name]()

    assert choose(list(models), load, IMAGE, Target(file_bytes=1999)).model.startswith("small")  # the others are above
    assert choose(list(models), load, IMAGE, Target(min_psnr_db=30)).model == "small, quality 100.00"
    assert choose(list(models), load, IMAGE, Target(min_psnr_db=31)).model.startswith("large, quality 48")


@pytest.fixture
def bundles():
    """Three single-rate models: coarse, middle, fine."""
    return FakeBundles()


@pytest.fixture
def select(bundles):
    return lambda **target: choose(
        ["fine", "coarse", "middle"], lambda name: bundles(name, max_pixels=0), IMAGE, Target(**target)
    )


@pytest.fixture
def sizes(bundles):
    return {name: len(bundles(name, max_pixels=0).compress(IMAGE)) for name in ("coarse", "middle", "fine")}


def test_the_largest_file_within_a_size(select, sizes):
    assert sizes["coarse"] < sizes["middle"] < sizes["fine"]
    for name, size in sizes.items():
        for target in ({"file_bytes": size}, {"bpp": 8 * (size + 0.5) / (64 * 96)}):
            choice = select(**target)
            assert len(choice.data) == size and choice.model == name and choice.reason.startswith("largest of ")


def test_the_smallest_file_with_a_quality(select, sizes):
    for wanted, name in ((1, "coarse"), (38, "fine")):
        choice = select(min_psnr_db=wanted, steps=1)
        assert choice.model == name and len(choice.data) == sizes[name] and "dB" in choice.reason


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"file_bytes": 10}, "10 bytes or less; the nearest is coarse with"),
        ({"bpp": 0.001}, "0.001 bpp or less; the nearest is coarse with"),
        ({"min_psnr_db": 90, "steps": 1}, "90 dB; the nearest is fine with"),
    ],
)
def test_invalid_targets_name_the_nearest(select, target, message):
    with pytest.raises(CdcError, match=message):
        select(**target)
