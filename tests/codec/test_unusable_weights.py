"""Networks that give no finite numbers: an error that names part and weight, never a normal-looking file or image.

The bundles here are loaded and changed afterwards: loading one with such weights is an error already.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.codec.bundle import load_bundle
from cdc_jax.codec.codec import Codec
from cdc_jax.diffusion.process import NoiseLevel, estimate
from cdc_jax.errors import BundleError

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 200, 3), np.uint8)


@pytest.fixture(scope="module", params=["random_bundle", "compact_bundle"])
def bundle(request):
    return load_bundle(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def data(bundle) -> bytes:
    return Codec(bundle).compress(IMAGE)


def spoiled(bundle, name: str, value: float) -> Codec:
    """A codec with one number of a weight changed."""
    array = np.array(bundle.params[name])
    array.reshape(-1)[-1] = value
    return Codec(dataclasses.replace(bundle, params={**bundle.params, name: jnp.asarray(array)}))


def last(bundle, module: str, leaf: str = "bias") -> str:
    """The name of the last weight of a module: no activation function comes after it."""
    return [name for name in bundle.params if name.startswith(module) and name.endswith(leaf)][-1]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("part", ["encoder", "hyper_encoder"])
def test_latents(bundle, part, value):
    module = (
        f"compressor.{part}.{'convs.2' if part == 'hyper_encoder' else 'out' if bundle.config.compact else 'downs'}"
    )
    name = last(bundle, module)
    with pytest.raises(BundleError, match=rf"latents are not finite.*compressor\.{part} .*in {name}\)"):
        spoiled(bundle, name, value).compress(IMAGE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("settings", [{}, {"tile": 192}, {"steps": 3}])
def test_pixels(bundle, data, value, settings):
    with pytest.raises(BundleError, match=r"image is not made of finite .* unet .*in unet\.final_conv\.bias\)"):
        spoiled(bundle, "unet.final_conv.bias", value).decompress(data, **settings)


def test_context_maps(bundle, data):
    name = last(bundle, "compressor.context_decoder.ups")
    with pytest.raises(BundleError, match=r"image is not made of finite .* compressor\.context_decoder "):
        spoiled(bundle, name, np.nan).decompress(data)


def test_the_other_ways_to_decode(bundle, data):
    codec = spoiled(bundle, "unet.final_conv.bias", np.nan)
    with pytest.raises(BundleError, match="not made of finite"):
        codec.decompress_batch([data, data])
    with pytest.raises(BundleError, match="not made of finite"):
        list(codec.decompress_progressively(data))


@pytest.mark.parametrize("prediction", ["x", "epsilon", "v"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_clipping_hides_nothing(prediction, value):
    output = jnp.array([0.25, value, 9.0])
    image = estimate(prediction, output, jnp.zeros(3), NoiseLevel.of(jnp.float32(0.5))).image
    assert np.isfinite(image).tolist() == [True, False, True]
