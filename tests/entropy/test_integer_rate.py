"""The rate of the integer hyper decoder compared with the float one, and bundles that violate its bound."""

import json
import shutil

import jax
import numpy as np
import pytest

from cdc_jax.codec.bundle import load_bundle
from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import BundleError
from cdc_jax.io.pixels import to_unit_range
from cdc_jax.models.params import merge
from tests.entropy.npz import rewrite


def _latents(bundle, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(y, symbols of z, float μ, float σ) of an image whose sides are multiples of 64."""
    medians = np.asarray(bundle.params["compressor.prior.medians"])

    @jax.jit
    def run(params, x):
        compressor = merge(bundle.config, params).compressor
        y, z = compressor.encode(to_unit_range(x))
        symbols = jax.numpy.round(z - medians)
        mean, scale = compressor.hyper_decoder(symbols + medians)
        return y[0], symbols[0].astype(jax.numpy.int32), mean[0], scale[0]

    return tuple(np.asarray(array) for array in run(bundle.params, image[None]))


def _rates_bits(bundle, image: np.ndarray) -> tuple[float, float]:
    """Rates under the same tables: (with the float hyper decoder's μ and σ, with the integer one's)."""
    y, z, float_mean, float_scale = _latents(bundle, image)
    coder, scales = EntropyCoder(bundle.coding), bundle.coding.scales
    midpoints = np.sqrt(scales[1:] * scales[:-1])
    float_index = np.searchsorted(midpoints, float_scale, side="right").astype(np.uint8)
    mean, index = bundle.coding.hyper_decoder.decode(z)
    assert np.mean(float_index != index) < 0.005
    pairs = (float_mean, float_index), (mean, index)
    return tuple(sum(coder.part_bits(z, np.rint(y - mean).astype(np.int32), index)) for mean, index in pairs)


def test_costs_less_than_a_thousandth_on_trained_weights(trained_bundle, photograph):
    bundle = load_bundle(trained_bundle)
    float_bits, integer_bits = _rates_bits(bundle, photograph[:256, :448])
    assert float_bits > 10_000
    assert abs(integer_bits / float_bits - 1) < 0.001


@pytest.fixture
def copy(random_bundle, tmp_path):
    """A bundle to modify."""
    return shutil.copytree(random_bundle, tmp_path / "bundle")


def _adopt(bundle, **arrays) -> None:
    """Replaces arrays in coding.npz, and updates the fingerprint in config.json as an export would."""
    rewrite(bundle / "coding.npz", **arrays)
    try:
        fingerprint = CodingModel.load(bundle / "coding.npz").fingerprint.hex()
    except BundleError:
        return
    facts = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**facts, "fingerprint": fingerprint}))


def test_a_bundle_cannot_violate_the_bound(copy):
    """A weight just above the bound is refused; one just below opens and is exact."""
    with np.load(copy / "coding.npz") as arrays:
        kernel, bias = arrays["kernel_2"], arrays["bias_2"]
    layer = CodingModel.load(copy / "coding.npz").hyper_decoder.layers[2]
    largest = np.abs(kernel.astype(np.int64)).sum(axis=(0, 1, 2)) * 2**23 + np.abs(bias)
    heaviest = int(largest.argmax())
    assert layer.largest_sum() == largest.max() + 2 ** (layer.shift - 1)
    bias[heaviest] += (1 if bias[heaviest] >= 0 else -1) * (2**53 - 1 - layer.largest_sum())
    _adopt(copy, bias_2=bias)
    assert load_bundle(copy).coding.hyper_decoder.layers[2].largest_sum() == 2**53 - 1
    bias[heaviest] += 1 if bias[heaviest] >= 0 else -1
    _adopt(copy, bias_2=bias)
    with pytest.raises(BundleError, match="2\\^53"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"kernel_0": np.full((5, 5, 16, 16), 2**17, np.int32)}, "18 bits"),
        ({"fractional_bits": np.array([17, 16, 16, 16], np.int32)}, "fractional bits"),
        ({"weight_bits": np.array([31, 31, 31], np.int32)}, "weight bits"),
    ],
)
def test_an_inconsistent_bundle_is_refused(copy, arrays, message):
    _adopt(copy, **arrays)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


def test_a_coding_file_of_another_model_is_refused(copy):
    """It is valid by itself, but files written with this bundle could not be read with the original."""
    rewrite(copy / "coding.npz", medians=np.arange(16, dtype=np.int32))
    with pytest.raises(BundleError, match="coding.npz"):
        load_bundle(copy)
