"""Batches of images: which images share a batch, the order of results, one and eight devices."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.codec.batching import plan_batches
from cdc_jax.codec.device_pool import LocalDevices
from cdc_jax.errors import BitstreamError, ConfigError
from cdc_jax.io import cdc_file
from tests.helpers.processes import FAST_COMPILE_FLAGS, user_environment

sizes = st.lists(st.sampled_from([None, (64, 64), (64, 128), (512, 768), (1024, 1024), (4032, 6016)]), max_size=30)


@given(sizes, st.integers(1, 9), st.sampled_from([0, 2**17, 2**20]))
def test_batches_hold_each_image_once_and_fit(sizes, devices, device_pixels):
    batches = plan_batches(sizes, devices, device_pixels)
    members = [index for batch in batches for index in batch.members]
    assert sorted(members) == [index for index, size in enumerate(sizes) if size is not None]
    for batch in batches:
        height, width = sizes[batch.members[0]]
        assert {sizes[index] for index in batch.members} == {(height, width)}
        assert batch.size % devices == 0 and batch.members == sorted(batch.members)
        assert batch.size == devices or batch.size // devices * height * width <= device_pixels
        assert 0 <= batch.size - len(batch.members)
    for size in set(sizes) - {None}:  # one program for each size
        assert len({batch.size for batch in batches if sizes[batch.members[0]] == size}) == 1


def test_batches_are_even():
    batches = plan_batches([(512, 512)] * 9, 1)
    assert [len(batch.members) for batch in batches] == [3, 3, 3]


def images(*shapes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [
        np.kron(random.integers(0, 256, (-(-h // 8), -(-w // 8), 3)), np.ones((8, 8, 1)))[:h, :w].astype(np.uint8)
        for h, w in shapes
    ]


SETTINGS = {"steps": 2, "seed": 3, "gamma": 0.5, "eta": 0.5}
SHAPES = [(64, 64), (20, 100), (64, 60), (33, 64), (1, 128)]


@pytest.fixture(scope="module")
def files(random_codec):
    return [random_codec.compress(image) for image in images(*SHAPES)]


@pytest.mark.parametrize("device_pixels, most", [(0, 0), (2**20, 1)])
def test_batches_equal_single_images(random_codec, files, monkeypatch, device_pixels, most):
    """Exactly if each image has its own device, as on CPUs; within 1 of 255 if images share a program."""
    monkeypatch.setattr(LocalDevices, "batch_pixels", device_pixels)
    calls = []
    batched = random_codec.decompress_batch(files, **SETTINGS, progress=lambda *done: calls.append(done))
    assert calls == [(done, 5) for done in range(1, 6)]
    for actual, data, shape in zip(batched, files, SHAPES, strict=True):
        assert actual.shape == (*shape, 3)
        single = random_codec.decompress(data, **SETTINGS)
        assert np.abs(actual.astype(int) - single).max() <= most


def test_an_invalid_file_does_not_affect_the_others(random_codec, files):
    container = cdc_file.unpack(files[2])
    stream = bytes([container.stream[0] ^ 1]) + container.stream[1:]
    corrupt = cdc_file.pack(container.fingerprint, container.height, container.width, stream)
    given = [files[0], corrupt, b"nonsense", files[3]]
    actual = dict(random_codec.decompress_each(given, **SETTINGS))
    assert sorted(actual) == [0, 1, 2, 3]
    assert isinstance(actual[1], BitstreamError) and isinstance(actual[2], BitstreamError)
    for index in (0, 3):
        single = random_codec.decompress(given[index], **SETTINGS)
        assert np.abs(actual[index].astype(int) - single).max() <= 1
    with pytest.raises(BitstreamError):
        random_codec.decompress_batch(given, **SETTINGS)
    assert random_codec.decompress_batch([]) == [] == random_codec.compress_batch([])
    with pytest.raises(ConfigError):
        random_codec.decompress_batch(files, steps=0)


# Runs on a host with eight devices; its digests are compared with those of this process's single device.
WORKER = """
import json, sys
import jax, numpy as np
import cdc_jax
from cdc_jax.runtime.sharding import make_mesh
from tests.codec.test_batching import SETTINGS, SHAPES, images
from tests.codec.test_tiled_decoding import case, in_tiles
from cdc_jax.codec.decoding import predict
from cdc_jax.runtime.sharding import replicated, split_batch
bundle, out = sys.argv[1:]
codec = cdc_jax.load_codec(bundle)
files = codec.compress_batch(images(*SHAPES))
decoded = codec.decompress_batch(files, **SETTINGS)
config, params, y_hat = case("x", (8, 24))
mesh = make_mesh()
params = jax.device_put(params, replicated(mesh))
tiles = in_tiles(config, params, y_hat, mesh=mesh, steps=1)
batch = jax.device_put((np.zeros((8, 8, 8, 16), np.float32), np.zeros((8, 128, 128, 3), np.float32)), split_batch(mesh))
text = predict.lower(config, params, *batch, np.float32(0.5)).compile().as_text()
collectives = [n for n in ("all-reduce", "all-gather", "all-to-all", "collective-permute") if n + "(" in text]
np.savez(out, tiles=tiles, **{f"image{i}": image for i, image in enumerate(decoded)})
print(json.dumps({"devices": jax.device_count(), "files": [f.hex() for f in files], "collectives": collectives}))
"""


@pytest.fixture(scope="module")
def eight_devices(random_bundle, tmp_path_factory):
    """The output and the saved arrays of WORKER."""
    out = tmp_path_factory.mktemp("eight") / "out.npz"
    flags = f"{FAST_COMPILE_FLAGS} --xla_force_host_platform_device_count=8"
    environment = user_environment(JAX_PLATFORMS="cpu") | {"XLA_FLAGS": flags}
    command = [sys.executable, "-c", WORKER, str(random_bundle), str(out)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1]), np.load(out)


def test_eight_devices_write_the_same_files(eight_devices, files):
    assert eight_devices[0]["devices"] == 8
    assert eight_devices[0]["files"] == [data.hex() for data in files]


def test_eight_devices_make_the_same_images(eight_devices, random_codec, files):
    for index, data in enumerate(files):
        single = random_codec.decompress(data, **SETTINGS)
        assert np.abs(eight_devices[1][f"image{index}"].astype(int) - single).max() <= 1


def test_tiles_over_eight_devices_are_those_of_one(eight_devices):
    from tests.codec.test_tiled_decoding import case, in_tiles

    expected = in_tiles(*case("x", (8, 24)), steps=1)
    np.testing.assert_allclose(eight_devices[1]["tiles"], expected, atol=1e-4)
    assert eight_devices[0]["collectives"] == []
