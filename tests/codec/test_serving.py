"""Programs for serving: the same files and pixels as `Codec`, in a process without the networks' code."""

from __future__ import annotations

import io
import subprocess
import sys
import urllib.error
import urllib.request

import jax
import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.bundle import load_bundle, save_bundle
from cdc_jax.codec.serving import DECODER_FILE, ENCODER_FILE, PLATFORMS, Serving
from cdc_jax.errors import BundleError, ConfigError
from tests.helpers.processes import ROOT, user_environment

pytest.importorskip("flatbuffers", reason="the package is not installed: pip install '.[serving]'")
sys.path.append(str(ROOT / "examples"))


def served(bundle_dir, folder, size=None):
    """A copy of a bundle with its programs, and the example's model of it."""
    from serve import Model

    bundle = load_bundle(bundle_dir)
    save_bundle(folder, bundle.config, bundle.params, provenance="", coding=bundle.coding, serving=Serving(size))
    return Model(folder)


def image_of(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def compact(compact_bundle, tmp_path_factory):
    """(the folder, the example's model) of the compact model for any size."""
    folder = tmp_path_factory.mktemp("served") / "bundle"
    return folder, served(compact_bundle, folder)


@pytest.mark.parametrize("size", [(64, 64), (1, 70), (200, 130)])
def test_any_size_gives_the_same_file_and_pixels(compact, compact_codec, size):
    image = image_of(*size)
    for quality in (0, 37.25, 100):
        data = compact[1].compress(image, quality)
        assert data == compact_codec.compress(image, quality=quality)
    difference = compact[1].decompress(data).astype(int) - compact_codec.decompress(data)
    assert difference.shape == image.shape and np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) <= 1e-4 * difference.size


@pytest.mark.parametrize("name", ["compact", pytest.param("random", marks=pytest.mark.slow)])
def test_one_size_gives_exactly_the_same_pixels(request, name, tmp_path):
    """Also in the paper's layout (random), whose every level has attention."""
    codec = request.getfixturevalue(f"{name}_codec")
    model = served(request.getfixturevalue(f"{name}_bundle"), tmp_path / "b", size=(128, 192))
    image = image_of(120, 190)
    data = model.compress(image)
    assert data == codec.compress(image)
    np.testing.assert_array_equal(model.decompress(data), codec.decompress(data))
    with pytest.raises(ValueError):
        model.compress(image_of(64, 64))


def test_batches_and_platforms(compact, compact_codec):
    folder, model = compact
    for file, program in ((ENCODER_FILE, model.encoder), (DECODER_FILE, model.decoder)):
        assert (folder / file).is_file() and program.platforms == PLATFORMS
    images = np.stack([image_of(64, 128), image_of(64, 128)[::-1]])
    y, z, medians = model.encode(images)
    assert y.shape == (2, 4, 8, 12) and z.shape == (2, 1, 2, 6) and medians.shape == (6,)
    alone = model.encode(images[1:])
    np.testing.assert_allclose(y[1], alone[0][0], atol=1e-4)
    decoded = model.decode(np.asarray(y), np.array([0.2, 0.9], np.float32))
    assert decoded.shape == images.shape and decoded.dtype == np.uint8


def test_the_encoder_holds_only_the_weights_that_it_uses(compact, compact_codec):
    weights = sum(4 * value.size for value in compact_codec.params.values())
    assert (compact[0] / ENCODER_FILE).stat().st_size < 0.6 * weights


def test_a_bundle_with_programs_is_an_ordinary_one(compact, compact_codec):
    codec = cdc_jax.load_codec(compact[0])
    assert codec.weights_sha256 == compact_codec.weights_sha256 and codec.fingerprint == compact_codec.fingerprint


def test_what_cannot_be_served(compact_codec, tmp_path, monkeypatch):
    for size in ((100, 64), (0, 64)):
        with pytest.raises(ConfigError, match="take multiples of 64 pixels"):
            save_bundle(tmp_path / "b", None, {}, provenance="", serving=Serving(size))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"package flatbuffers: pip install '\.\[serving\]'\.$"):
        save_bundle(tmp_path / "b", None, {}, provenance="", serving=Serving())
    assert not list(tmp_path.iterdir())


def test_the_example_serves(compact, compact_codec):
    """As a user runs it: a process that loads neither Flax nor orbax nor an image library."""
    code = (
        "import runpy, sys, threading; sys.argv = ['serve.py', sys.argv[1], '0']\n"
        "import http.server; start = http.server.ThreadingHTTPServer.serve_forever\n"
        "def check(server):\n"
        "    print({'flax', 'orbax', 'PIL', 'safetensors', 'cdc_jax.models'} & set(sys.modules), flush=True)\n"
        "    start(server)\n"
        "http.server.ThreadingHTTPServer.serve_forever = check\n"
        "runpy.run_path('examples/serve.py', run_name='__main__')"
    )
    image, body = image_of(50, 90), io.BytesIO()
    np.save(body, image)
    command = [sys.executable, "-c", code, str(compact[0])]
    with subprocess.Popen(command, cwd=ROOT, env=user_environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            url, loaded = process.stdout.readline().strip(), process.stdout.readline().strip()
            assert loaded == "set()"

            def post(path, data):
                with urllib.request.urlopen(url + path, data, timeout=120) as answer:
                    return answer.read()

            data = post("/compress?quality=40", body.getvalue())
            assert data == compact_codec.compress(image, quality=40)
            decoded = np.load(io.BytesIO(post("/decompress", data)))
            np.testing.assert_array_equal(decoded, compact_codec.decompress(data))
            with pytest.raises(urllib.error.HTTPError, match="400"):
                post("/decompress", data[:-1])
        finally:
            process.terminate()


def test_the_programs_load_in_the_jax_that_is_here(compact):
    """Loaded without the example, as docs/serving.md shows."""
    program = jax.export.deserialize(bytearray((compact[0] / DECODER_FILE).read_bytes()))
    image = jax.jit(program.call)(np.zeros((1, 4, 4, 12), np.float32), np.array([0.5], np.float32))
    assert image.shape == (1, 64, 64, 3)
