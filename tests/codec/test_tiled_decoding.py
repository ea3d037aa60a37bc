"""Decoding in tiles: one tile equals the whole image, devices do not matter, and borders are invisible."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from cdc_jax.codec import tiled_decoding
from cdc_jax.codec.decoding import sample
from cdc_jax.codec.memory import decoding_bytes, kept_bytes, tile_within
from cdc_jax.codec.tiled_decoding import sample_in_tiles
from cdc_jax.codec.tiling import Axis, default_tile, tile_shape
from cdc_jax.errors import ConfigError
from cdc_jax.models import precomputed
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import merge
from cdc_jax.runtime.sharding import make_mesh
from tests.helpers.compact import COMPACT

# XLA's defaults: tiles are two programs and the whole image is one, and with the tests' compiler flags their rounding
# differs more than in a user's process.
DEFAULTS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
whole = jax.jit(sample, static_argnums=(0, 1, 2), compiler_options=DEFAULTS)


def case(prediction: str, cells: tuple[int, int] = (8, 12)):
    """(config, weights, ŷ) of a random model of width 4."""
    config = ModelConfig(prediction=prediction, width=4)
    y_hat = np.random.default_rng(0).normal(0, 2, (*cells, config.latent_channels)).astype(np.float32)
    return config, initial_weights(config, 1), y_hat


def compact_case(cells: tuple[int, int]):
    """The same for the tiny compact model."""
    y_hat = np.random.default_rng(0).normal(0, 2, (*cells, COMPACT.latent_channels)).astype(np.float32)
    return COMPACT, initial_weights(COMPACT, 1), y_hat


def in_tiles(config, params, y_hat, mesh=None, **changes):
    settings = {"steps": 2, "seed": 3, "gamma": 0.8, "eta": 0.0, "tile": 128, "overlap": 64} | changes
    return sample_in_tiles(config, params, mesh or make_mesh(jax.local_devices()[:1]), y_hat, **settings)


@pytest.mark.parametrize("prediction, steps, eta", [("x", 1, 0.0), ("epsilon", 2, 0.0), ("v", 2, 0.7)])
def test_one_tile_is_the_whole_image(prediction, steps, eta, monkeypatch):
    for name in ("prepare", "predict"):
        function = getattr(tiled_decoding, name).__wrapped__
        options = {"static_argnames": ("config", "compute_type"), "compiler_options": DEFAULTS}
        monkeypatch.setattr(tiled_decoding, name, jax.jit(function, **options))
    config, params, y_hat = case(prediction)
    settings = np.uint32(3), np.float32(0.8), np.float32(eta)
    expected = np.asarray(whole(config, steps, eta > 0, params, y_hat[None], *settings)[0])
    actual = in_tiles(config, params, y_hat, steps=steps, tile=192, eta=eta)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_tiles_see_only_themselves():
    """A tile's core equals the tile decoded alone, with the noise of its position in the image."""
    config, params, y_hat = case("x", (8, 24))
    actual = in_tiles(config, params, y_hat, steps=1)
    axis = Axis(384, 128, 64)
    changed = y_hat.copy()
    changed[:, 20:] += 1  # from pixel 320 on: the tile that begins at 256, and no other
    assert axis.spans[-2:] == [(192, 320), (256, 384)]
    other = in_tiles(config, params, changed, steps=1)
    np.testing.assert_array_equal(actual[:, :272], other[:, :272])
    assert (actual[:, 320:] != other[:, 320:]).any()


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The names of the programs that are called, in order."""
    names, call = [], tiled_decoding.programs.call

    def record(function, *arguments, **keywords):
        names.append(function.__name__)
        return call(function, *arguments, **keywords)

    monkeypatch.setattr(tiled_decoding.programs, "call", record)
    return names


@pytest.mark.parametrize("layout", ["paper", "compact"])
def test_keeping_what_steps_have_in_common_saves_work_and_changes_no_bit(layout, calls):
    config, params, y_hat = case("x", (8, 20)) if layout == "paper" else compact_case((8, 20))
    quality = 0.5 if config.variable_rate else None
    tiles = len(Axis(128, 128, 64).spans) * len(Axis(320, 128, 64).spans)
    results, prepared = [], []
    for keep in (tiles, 1, 0):
        calls.clear()
        results.append(in_tiles(config, params, y_hat, steps=3, eta=0.5, quality=quality, keep=keep))
        prepared.append(calls.count("prepare"))
        assert calls.count("predict") == 3 * tiles
    assert prepared == [tiles, 3 * tiles - 2, 3 * tiles] and tiles == 4
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_the_limit_decides_what_is_kept(random_codec, photograph, calls):
    """Through the codec: 128×320 in 3 tiles."""
    data = random_codec.compress(photograph[:128, :320])
    size = 128, 320, 192, random_codec.config
    needed = decoding_bytes(*size) + 3 * kept_bytes(*size)
    images, prepared = [], []
    for limit in (needed, needed - 1, needed - 3 * kept_bytes(*size)):
        calls.clear()
        images.append(random_codec.decompress(data, steps=2, tile=192, max_memory_bytes=limit))
        prepared.append(calls.count("prepare"))
    assert prepared == [3, 4, 6]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])
    calls.clear()
    random_codec.decompress(data, steps=1, tile=192)
    assert calls.count("prepare") == calls.count("predict") == 3


def test_other_images_of_the_size_share_the_rest_of_the_network():
    """`maps_of` returns all that depends on ŷ."""
    config, params, y_hat = case("x")
    rests = []
    for latents in (y_hat, y_hat + 1):
        model = merge(config, params)
        unet = model.unet.prepare(model.compressor.context(latents[None]))
        rests.append(precomputed.with_maps(unet, [0 * each for each in precomputed.maps_of(unet)]))
    jax.tree.map(np.testing.assert_array_equal, *rests)


def test_the_codec_takes_a_tile(random_codec, photograph):
    """The codec decodes an image of 320×512 in tiles of 192 pixels."""
    data = random_codec.compress(photograph)
    tiled = random_codec.decompress(data, steps=2, tile=192)
    assert tiled.shape == photograph.shape
    whole = random_codec.decompress(data, steps=2)
    assert whole.flags.writeable and tiled.flags.writeable
    assert (tiled != whole).any()
    np.testing.assert_array_equal(random_codec.decompress(data, steps=2, tile=512), whole)


@pytest.mark.parametrize("tile", [0, 64, 128, 200, -192])
def test_invalid_tiles_are_refused(random_codec, tile):
    data = random_codec.compress(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ConfigError, match="multiple of 64 above 128"):
        random_codec.decompress(data, tile=tile)


def test_the_largest_tile_within_a_limit(random_codec):
    data = random_codec.compress(np.zeros((1000, 1200, 3), np.uint8))
    needed = {tile: decoding_bytes(1024, 1216, tile, random_codec.config) for tile in (None, 768, 512, 192)}
    assert needed[None] > needed[768] > needed[512] > needed[192]
    assert random_codec.tile_within(data, needed[512]) == 512
    assert random_codec.tile_within(data, needed[768]) is None  # the default
    assert random_codec.tile_within(data, needed[None]) == 1216
    assert random_codec.tile_within(random_codec.compress(np.zeros((9, 9, 3), np.uint8)), 1 << 40) is None
    with pytest.raises(ConfigError, match="MiB") as refused:
        random_codec.tile_within(data, needed[192] - 1)
    mebibytes = int(str(refused.value).split(" MiB")[0].split()[-1])
    assert random_codec.tile_within(data, mebibytes << 20) == 192  # the memory that the message gives is enough


def test_a_tile_that_changes_nothing_is_the_default():
    """For 64×1472 pixels, limits of 640 and 768 give the same tiles: three of 576."""
    assert tile_shape(64, 1472, 640) == tile_shape(64, 1472, 768) == (64, 576)
    assert tile_shape(64, 1472, None) == tile_shape(64, 1472, 1472) == (64, 1472)
    config = ModelConfig(width=4)
    assert tile_within(decoding_bytes(64, 1472, 640, config), 64, 1472, config) == 576


def test_borders_of_tiles_are_invisible(trained_codec, photograph):
    """The error against the original is not larger where tiles overlap than elsewhere, nor at their edges.

    Both errors are relative to the image decoded whole, which removes the influence of the image's content.
    """
    data = trained_codec.compress(photograph)
    pixels = {
        tile: trained_codec.decompress(data, steps=5, gamma=0, tile=tile).astype(np.float64) for tile in (None, 256)
    }
    error = {tile: ((decoded - photograph) ** 2).mean(-1) for tile, decoded in pixels.items()}
    rows, columns = Axis(320, 256, 128), Axis(512, 256, 128)
    blended = np.zeros((320, 512), bool)
    for axis, length in ((0, rows), (1, columns)):
        for before, after in zip(length.spans, length.spans[1:], strict=False):
            np.moveaxis(blended, axis, 0)[after[0] : before[1]] = True
    blended = blended[: photograph.shape[0], : photograph.shape[1]]
    assert 0.3 < blended.mean() < 0.95
    excess = [error[256][part].mean() / error[None][part].mean() for part in (blended, ~blended)]
    assert excess[0] <= 1.02 * excess[1]


def test_the_size_of_an_image_determines_its_tiles():
    assert default_tile(512, 768) is None and default_tile(1024, 1024) is None
    assert default_tile(1088, 1024) == default_tile(4032, 6016) == default_tile(64, 1 << 20) == 768
