"""A codec as a Python object: types of settings, progress, repr, pickling and copies."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import shutil

import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.bundle import load_bundle
from cdc_jax.codec.codec import Codec
from cdc_jax.codec.decoding import synthesize
from cdc_jax.errors import BundleError, ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
SMALL = IMAGE[:60, :40]


@pytest.mark.parametrize("one", [np.int64(1), 1.0, np.float32(1)], ids=lambda value: type(value).__name__)
def test_equal_steps_share_a_program(random_codec, one):
    data = random_codec.compress(SMALL)
    expected = random_codec.decompress(data, steps=1, seed=1)
    programs = synthesize._cache_size()
    np.testing.assert_array_equal(random_codec.decompress(data, steps=one, seed=one), expected)
    assert synthesize._cache_size() == programs


def test_another_step_count_compiles_a_program(random_codec):
    data = random_codec.compress(SMALL)
    random_codec.decompress(data, steps=1)
    programs = synthesize._cache_size()
    random_codec.decompress(data, steps=7)
    assert synthesize._cache_size() == programs + 1


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), "1", np.array([1, 2])])
@pytest.mark.parametrize("name", ["steps", "seed"])
def test_fractional_settings_are_refused(random_codec, name, value):
    data = random_codec.compress(SMALL)
    with pytest.raises(ConfigError, match=f"{name} is .*; it must be a whole number"):
        random_codec.decompress(data, **{name: value})


def test_progress_counts_tiles_and_steps(random_codec):
    data = random_codec.compress(IMAGE)
    calls = []
    decoded = random_codec.decompress(data, steps=2, tile=192, progress=lambda *done: calls.append(done))
    assert calls == [(done, 12) for done in range(1, 13)]  # 256×320: two by three tiles
    np.testing.assert_array_equal(decoded, random_codec.decompress(data, steps=2, tile=192))


@pytest.mark.parametrize("steps", [0, 1])
def test_progress_of_an_image_decoded_whole(compact_codec, steps):
    data, calls = compact_codec.compress(SMALL), []
    compact_codec.decompress(data, steps=steps, progress=lambda *done: calls.append(done))
    assert calls == [(1, 1)]


def test_batches_take_a_tile(random_codec):
    files = random_codec.compress_batch([IMAGE, SMALL])
    tiled = random_codec.decompress_batch(files, steps=1, tile=192)
    for actual, data in zip(tiled, files, strict=True):
        np.testing.assert_array_equal(actual, random_codec.decompress(data, steps=1, tile=192))
    assert (tiled[0] != random_codec.decompress(files[0], steps=1)).any()
    for tile in (100, 128):
        with pytest.raises(ConfigError, match="tile"):
            random_codec.decompress_batch(files, tile=tile)


def test_repr(random_codec, random_bundle, compact_codec):
    model = f"x-prediction, width 4, one rate, fingerprint {random_codec.fingerprint.hex()}"
    assert repr(random_codec) == f"<Codec {random_bundle}: {model}, float32>"
    assert "every rate" in repr(compact_codec)


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda codec: pickle.loads(pickle.dumps(codec))])
def test_copies_make_the_same_files(random_bundle, again):
    codec = cdc_jax.load_codec(random_bundle, max_pixels=5000, compute_type="bfloat16")
    codec.compress(SMALL)  # compiled programs do not prevent pickling
    actual = again(codec)
    assert actual is not codec and repr(actual) == repr(codec)
    assert (actual.max_pixels, actual.compute_type) == (5000, "bfloat16")
    assert actual.compress(SMALL) == codec.compress(SMALL)


def test_a_pickle_contains_a_path(random_codec):
    assert len(pickle.dumps(random_codec)) < 1000


def test_a_pickle_finds_its_bundle_from_another_folder(random_bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(random_bundle.parent)
    stored = pickle.dumps(cdc_jax.load_codec(random_bundle.name))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(stored).compress(SMALL)


def test_a_pickle_of_other_weights_is_refused(random_bundle, compact_bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(random_bundle, folder)
    stored = pickle.dumps(cdc_jax.load_codec(folder))
    shutil.rmtree(folder)
    with pytest.raises(BundleError, match="no such folder"):
        pickle.loads(stored)
    shutil.copytree(compact_bundle, folder)
    with pytest.raises(BundleError, match="other weights"):
        pickle.loads(stored)


def test_a_codec_without_a_folder_cannot_be_pickled(random_bundle):
    codec = Codec(dataclasses.replace(load_bundle(random_bundle), path=None))
    assert "without a folder" in repr(codec)
    with pytest.raises(pickle.PicklingError, match="not loaded from a folder"):
        pickle.dumps(codec)
