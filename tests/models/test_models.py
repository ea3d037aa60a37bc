"""Model sizes, initial weights, and details of the modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.errors import ConfigError
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import merge, shapes, transposed_convolutions


def count(config, prefix=""):
    return sum(int(np.prod(leaf.shape)) for name, leaf in shapes(config).items() if name.startswith(prefix))


def test_parameter_counts_of_the_released_models():
    x = ModelConfig(width=64)
    assert count(x) == 53_885_379
    assert round(count(x, "unet") / 1e6, 3) == 40.108
    assert count(ModelConfig(prediction="epsilon", width=64)) == 53_627_654
    assert round(count(x, "compressor.encoder") / 1e6, 3) == 3.046
    assert round(count(x, "compressor.hyper_decoder") / 1e6, 3) == 4.457
    assert round(count(x, "compressor.context_decoder") / 1e6, 3) == 2.396


def test_v_is_built_like_x():
    assert shapes(ModelConfig(prediction="v", width=4)) == shapes(ModelConfig(prediction="x", width=4))


def test_initial_weights_follow_fan_in():
    weights = initial_weights(ModelConfig(width=8), 0)
    for name, fan_in in (
        ("compressor.encoder.blocks.0.block1.conv", 3 * 49),
        ("compressor.context_decoder.ups.0", 24 * 16),  # transposed: output channels
        ("compressor.hyper_decoder.convs.0", 32 * 25),
        ("compressor.hyper_decoder.convs.2", 32 * 9),
        ("unet.ups.1.resize", 32 * 16),
        ("unet.time_embedding.first", 1),
    ):
        kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
        assert 0.9 / np.sqrt(fan_in) < np.abs(kernel).max() <= 1 / np.sqrt(fan_in), name
        assert np.abs(bias).max() <= 1 / np.sqrt(fan_in), name
    assert (weights["unet.final_norm.scale"] == 1).all() and (weights["unet.final_norm.bias"] == 0).all()
    prior = weights["compressor.prior.weights.1"]
    np.testing.assert_allclose(prior, np.log(np.expm1(10**-0.25 / 3)), rtol=1e-6)


def test_initial_weights_depend_on_the_seed_alone():
    first, again, other = (initial_weights(ModelConfig(width=2), seed) for seed in (0, 0, 1))
    assert all((first[name] == again[name]).all() for name in first)
    kernels = [name for name in first if name.endswith("kernel")]
    assert all((first[name] != other[name]).any() for name in kernels)


def test_latent_gain_scales_y():
    config = ModelConfig(width=8)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    encode = jax.jit(lambda params, x: merge(config, params).compressor.encode(x)[0])
    plain = encode(initial_weights(config, 0), image)
    scaled = encode(initial_weights(config, 0, latent_gain=4.0), image)
    np.testing.assert_allclose(scaled, 4 * plain, rtol=1e-4, atol=1e-5)


def test_transposed_layers():
    names = [f"{name}.kernel" for name in transposed_convolutions(ModelConfig(width=2))]
    assert len(names) == 4 + 2 + 5
    assert all(shapes(ModelConfig(width=2))[name].shape[0] in (4, 5) for name in names)


def test_compressor_runs_at_full_precision_and_the_unet_as_asked():
    config = ModelConfig(width=2)
    image = jnp.zeros((1, 64, 64, 3))

    def precisions(part, **options):
        def run(params):
            model = merge(config, params, **options)
            compressed = model.compress(image)
            if part == "compressor":
                return compressed.rate_bits, compressed.context
            return model.unet(image, jnp.zeros((1,)), compressed.context)

        text = jax.jit(run).lower(shapes(config)).as_text()
        products = ("stablehlo.convolution", "stablehlo.dot_general")
        lines = [line for line in text.splitlines() if any(product in line for product in products)]
        assert lines
        return ["HIGHEST" in line for line in lines]

    assert all(precisions("compressor", unet_precision=None))
    assert all(precisions("unet", unet_precision="highest"))
    relaxed = precisions("unet", unet_precision=None)
    assert not all(relaxed) and any(relaxed)


def test_bfloat16_unet_keeps_float32_weights_and_output():
    config = ModelConfig(width=8)  # with two channels, channel norm would amplify rounding errors
    weights = initial_weights(config, 0)

    def run(dtype):
        def unet(params, x):
            model = merge(config, params, unet_dtype=dtype)
            return model.unet(x, jnp.zeros((1,)), model.compress(x).context)

        x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)), jnp.float32)
        return jax.jit(unet)(weights, x)

    exact, fast = run(None), run(jnp.bfloat16)
    assert fast.dtype == jnp.float32
    difference = float(jnp.mean(jnp.abs(exact - fast)) / jnp.mean(jnp.abs(exact)))
    assert 0 < difference < 0.05


@pytest.mark.parametrize(
    "settings",
    [{"prediction": "y"}, {"width": 0}, {"width": 2.5}, {"decode_steps": 0}, {"decode_gamma": -1.0}],
)
def test_invalid_models(settings):
    with pytest.raises(ConfigError):
        ModelConfig(**settings)


def test_config_survives_json():
    config = ModelConfig(prediction="epsilon", width=3)
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="widht"):
        ModelConfig.from_dict({"widht": 3})


@pytest.mark.parametrize("kernel", [4, 5])
def test_transposed_convolution_is_one_over_zeros(kernel):
    """Values and gradients equal those of the definition: a convolution of the input with zeros between samples."""
    from cdc_jax.models.blocks import TransposedConv

    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 5, 7, 3)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(kernel, kernel, 3, 4)), jnp.float32)
    bias = jnp.asarray(random.normal(size=4), jnp.float32)

    def ours(x, weights, bias):
        module = TransposedConv(3, 4, kernel)
        module.kernel[...], module.bias[...] = weights, bias
        return module(x)

    def definition(x, weights, bias):
        padding = {4: (2, 2), 5: (2, 3)}[kernel]
        return (
            jax.lax.conv_general_dilated(
                x,
                weights,
                (1, 1),
                (padding, padding),
                lhs_dilation=(2, 2),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision="highest",
            )
            + bias
        )

    assert ours(x, weights, bias).shape == (2, 10, 14, 4)
    np.testing.assert_allclose(ours(x, weights, bias), definition(x, weights, bias), atol=2e-5)
    found, expected = (
        jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1, 2))(x, weights, bias)
        for f in (ours, definition)
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
