"""Float16 weights of a bundle: half the size, loaded exactly as rounded, with clear errors for corrupt files."""

import json
import warnings

import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.bundle import load_bundle, save_bundle, weights_hash
from cdc_jax.codec.bundle_weights import round_to_half
from cdc_jax.codec.verification import load_verifier
from cdc_jax.errors import BundleError

FILE = "weights.safetensors"
KERNEL = "compressor.encoder.blocks.0.block1.conv.kernel"


@pytest.fixture(scope="module")
def weights(random_bundle):
    """(settings, float32 weights) of a bundle."""
    bundle = load_bundle(random_bundle)
    return bundle.config, {name: np.asarray(value) for name, value in bundle.params.items()}


def save(folder, weights, **options):
    config, params = weights
    save_bundle(folder, config, params, provenance="random weights, for tests", half=True, **options)
    return folder


@pytest.fixture
def half(weights, tmp_path):
    return save(tmp_path / "half", weights)


def test_the_rounded_weights_are_loaded(weights, half):
    bundle, rounded = load_bundle(half), round_to_half(weights[1])
    assert not (half / "weights").exists()
    assert bundle.params.keys() == rounded.keys()
    for name, value in rounded.items():
        assert bundle.params[name].dtype == np.float32
        np.testing.assert_array_equal(bundle.params[name], value, err_msg=name)
        np.testing.assert_allclose(value, weights[1][name], rtol=2**-11, atol=2**-24, err_msg=name)
    assert bundle.weights_sha256 == weights_hash(bundle.params)


def test_a_weight_takes_two_bytes(weights, half):
    values = sum(value.size for value in weights[1].values())
    header = int.from_bytes((half / FILE).read_bytes()[:8], "little")
    assert (half / FILE).stat().st_size == 8 + header + 2 * values


def test_files_round_trip(half):
    codec = cdc_jax.load_codec(half)
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    data = codec.compress(image)
    assert codec.decompress(data).shape == image.shape
    assert load_verifier(half).verify(data).num_symbols > 0


def test_arrays_may_have_any_memory_order(weights, half, tmp_path):
    """The format stores an array's memory in C order and has no other order."""
    config, params = weights
    assert params[KERNEL].ndim == 4
    odd = {name: np.asfortranarray(value) for name, value in params.items()}
    odd[KERNEL] = np.repeat(params[KERNEL], 2, axis=1)[:, ::2]
    assert not odd[KERNEL].flags.c_contiguous
    save(tmp_path / "odd", (config, odd))
    assert (tmp_path / "odd" / FILE).read_bytes() == (half / FILE).read_bytes()
    assert load_bundle(tmp_path / "odd").weights_sha256 == load_bundle(half).weights_sha256


@pytest.mark.parametrize("value", [65520.0, -1e30, np.inf, np.nan])
def test_values_outside_float16_s_range_are_refused(weights, tmp_path, value):
    config, params = weights
    kernel = params[KERNEL].copy()
    kernel[0, 0, 0, 0] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BundleError, match=rf"{KERNEL} has values that float16 cannot hold"):
            save(tmp_path / "large", (config, {**params, KERNEL: kernel}))
    assert list(tmp_path.iterdir()) == []


def test_the_largest_float16_is_65504(weights, tmp_path):
    config, params = weights
    name = "unet.final_conv.bias"  # no table depends on it
    value = np.full_like(params[name], 65519.0)
    assert (load_bundle(save(tmp_path / "b", (config, {**params, name: value}))).params[name] == 65504).all()


def one_line(folder):
    with pytest.raises(BundleError) as raised:
        load_bundle(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("length", [0, 7, 8, 1000, -1])
def test_a_truncated_file(half, length):
    data = (half / FILE).read_bytes()
    (half / FILE).write_bytes(data[:length])
    message = one_line(half)
    assert f"{half / FILE} cannot be read" in message and "incomplete or corrupt" in message


def test_a_missing_file(half):
    (half / FILE).unlink()
    assert f"{half / 'weights'}" in one_line(half)


def test_a_corrupt_header(half):
    data = bytearray((half / FILE).read_bytes())
    data[:8] = b"\xff" * 8
    (half / FILE).write_bytes(data)
    assert FILE in one_line(half)


def test_weights_of_another_architecture(half):
    facts = json.loads((half / "config.json").read_text())
    facts["model"]["prediction"] = "epsilon"
    (half / "config.json").write_text(json.dumps(facts))
    assert "weight compressor.context_decoder" in one_line(half)


def test_a_file_that_cannot_be_written(weights, tmp_path):
    resource = pytest.importorskip("resource", reason="limits the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(BundleError, match="Cannot write the bundle .*: File too large"):
            save(tmp_path / "b", weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
