"""The compact architecture: shapes, initialization as a transform codec, gains, and the gradients of the rate."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.diffusion.process import PREDICTIONS, NoiseLevel
from cdc_jax.entropy import integer_checkerboard
from cdc_jax.entropy.gaussian import gaussian_likelihood
from cdc_jax.entropy.quantize import likelihood_bits
from cdc_jax.models.compressor import log2_magnitude
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import log2_gains, merge, shapes
from cdc_jax.models.plain_unet import plain_unet
from cdc_jax.models.transform import PATCH_VALUES, fold, unfold
from tests.helpers.compact import COMPACT, compact_weights
from tests.helpers.golden import relative_error

SIDE = 64


def image(batch=1, height=SIDE, width=SIDE, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (batch, height, width, 3)), jnp.float32)


def rounding_noise(config, batch=1):
    """Uniform noise for y and z, in place of rounding."""
    random = np.random.default_rng(3)
    shapes = (batch, 4, 4, config.latent_channels), (batch, 1, 1, config.hyper_channels)
    return tuple(jnp.asarray(random.uniform(-0.5, 0.5, shape), jnp.float32) for shape in shapes)


def folded(side, prediction="x", width=8):
    """A compact model that folds squares of the given side."""
    levels = int(math.log2(16 // side)) + 1
    channels = tuple(width + 4 * i for i in range(levels))
    return dataclasses.replace(
        COMPACT, fold=side, prediction=prediction, width=width, encoder_channels=channels, unet_channels=channels
    )


@pytest.mark.parametrize("side", [2, 4, 8])
def test_shapes_for_every_fold(side):
    config = folded(side)

    def run(params, x):
        model = merge(config, params)
        compressed = model.compress(x, quality=jnp.array([0.3]))
        return compressed, model.unet(x, jnp.array([0.5]), compressed.context, jnp.array([0.3]))

    compressed, output = jax.eval_shape(run, shapes(config), image(1, 64, 128))
    assert output.shape == (1, 64, 128, 3) == compressed.context.preview.shape
    assert compressed.y.shape == compressed.mean.shape == compressed.scale.shape == (1, 4, 8, config.latent_channels)
    assert compressed.z.shape == (1, 1, 2, config.hyper_channels) and compressed.rate_bits.shape == (1,)
    maps = [(1, 64 // side >> i, 128 // side >> i, c) for i, c in enumerate(config.unet_channels)]
    assert [m.shape for m in compressed.context.maps] == maps and maps[-1][1:3] == (4, 8)


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_unfolding_reverses_folding_and_keeps_neighbors_together(side):
    x = image(2, 32, 48)
    np.testing.assert_array_equal(unfold(fold(x, side), side), x)
    corner = np.asarray(fold(x, side))[1, 0, 1].reshape(side, side, 3)
    np.testing.assert_array_equal(corner, x[1, :side, side : 2 * side])


@pytest.mark.parametrize(("prediction", "width"), [("x", 8), ("epsilon", 3), ("v", 5)])
def test_every_prediction_and_width_takes_a_gradient_step(prediction, width):
    config = folded(8, prediction, width)
    weights = compact_weights(config)
    clean, noise, rounding = image(2), image(2, seed=1), rounding_noise(config, 2)
    level, quality = NoiseLevel.of(jnp.array([0.9, 0.2])).per_image(), jnp.array([0.1, 0.9])
    kind = PREDICTIONS[prediction]

    @jax.jit
    @jax.value_and_grad
    def loss(weights):
        model = merge(config, weights)
        compressed = model.compress(clean, rounding, quality)
        noisy = level.signal * clean + level.noise * noise
        output = model.unet(noisy, jnp.array([0.1, 0.8]), compressed.context, quality)
        return jnp.mean((output - kind.target(clean, noise, level)) ** 2) + jnp.mean(compressed.rate_bits) / SIDE**2

    before, gradients = jax.tree.map(np.asarray, loss(weights))
    untouched = {name for name, g in gradients.items() if not np.any(g)}
    assert all(np.all(np.isfinite(g)) for g in gradients.values())
    # Deviations are not trained; the prior's medians have a separate loss.
    assert untouched <= {"compressor.transform.deviations", "compressor.prior.medians"}
    # A step of the U-Net alone: what moves a rounding moves the loss by a jump.
    steps = {name: g if name.startswith("unet.") else 0 * g for name, g in gradients.items()}
    norm = np.sqrt(sum(np.sum(g**2) for g in steps.values()))
    after, _ = loss({name: w - 1e-2 * steps[name] / norm for name, w in weights.items()})
    assert after < before


@pytest.mark.parametrize(("side", "prediction"), [(4, "x"), (8, "v")])
def test_the_prepared_unet_is_the_plain_one(side, prediction):
    config = folded(side, prediction)
    weights, time, quality = initial_weights(config, 1), jnp.array([0.1, 0.9]), jnp.array([0.7, 0.2])
    x = image(2, seed=2)

    @jax.jit
    def both(weights):
        model = merge(config, weights)
        context = model.compress(image(2), quality=quality).context
        return model.unet(x, time, context, quality), plain_unet(config, weights, x, time, context, quality)

    prepared, plain = both(weights)
    assert relative_error(prepared, plain) < 1e-5


def test_at_the_start_one_step_is_nearly_the_preview():
    @jax.jit
    def decode(weights, x):
        model = merge(COMPACT, weights)
        context = model.compress(x, quality=jnp.ones(1)).context
        return model.unet(jnp.zeros_like(x), jnp.array([1.0]), context, jnp.ones(1)), context.preview

    weights = initial_weights(COMPACT, 0)
    decoded, preview = decode(weights, image())
    assert 0 < float(jnp.max(jnp.abs(decoded - preview))) < 0.2
    other = {name: w * 20 if name.startswith("unet.final_conv") else w for name, w in weights.items()}
    decoded, preview = decode(other, image())
    assert float(jnp.max(jnp.abs(decoded - preview))) > 0.2  # they are close only because the last layer is small


def test_the_transform_of_an_orthonormal_basis_is_its_own_inverse():
    config = dataclasses.replace(COMPACT, latent_channels=PATCH_VALUES)
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(PATCH_VALUES, PATCH_VALUES)))[0].astype(np.float32)
    deviations = random.uniform(0.1, 5, PATCH_VALUES).astype(np.float32)
    model = merge(config, initial_weights(config, 0, klt=(basis, deviations)))
    x = image(1, 32, 48)
    coefficients = model.compressor.transform.analyze(x)
    np.testing.assert_allclose(model.compressor.transform.synthesize(coefficients), x, atol=2e-5)
    power = jnp.sum((coefficients * deviations) ** 2)
    assert float(power) == pytest.approx(float(jnp.sum(x**2)), rel=1e-4)


def test_gains_grow_with_the_quality_and_meet_the_anchors():
    weights = initial_weights(COMPACT, 0)
    random = np.random.default_rng(0)
    steps = "compressor.transform.gain_steps"
    weights[steps] = random.normal(0, 3, weights[steps].shape).astype(np.float32)
    transform = merge(COMPACT, weights).compressor.transform
    gains = np.asarray(transform.log2_gains(jnp.linspace(0, 1, 61)))[:, 0, 0]
    assert (np.diff(gains, axis=0) > 0).all()
    np.testing.assert_allclose(gains[::20], log2_gains(weights), rtol=1e-5, atol=1e-5)
    middle = (gains[0] + gains[20]) / 2
    np.testing.assert_allclose(gains[10], middle, rtol=1e-5, atol=1e-5)
    outside = np.asarray(transform.log2_gains(jnp.array([-0.5, 1.5])))[:, 0, 0]
    np.testing.assert_allclose(outside, gains[[0, -1]], rtol=1e-6)


def test_magnitudes_are_the_integer_networks():
    symbols = np.concatenate([np.arange(-300, 301), [-(2**20), 2**20 + 12345]]).astype(np.int32)
    bits = 12
    expected = integer_checkerboard.log2_magnitude(symbols, bits) / 2**bits
    np.testing.assert_allclose(log2_magnitude(jnp.asarray(symbols, jnp.float32)), expected, atol=2**-bits)
    powers = np.array([0, 1, 3, 7, 15])
    np.testing.assert_allclose(log2_magnitude(jnp.asarray(powers, jnp.float32)), [0, 1, 2, 3, 4], atol=1e-6)


def test_anchors_are_every_other_position_beginning_at_the_corner():
    mask = integer_checkerboard.anchor_mask(3, 4)
    np.testing.assert_array_equal(mask, [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])


def test_a_model_without_weights_refuses_to_run():
    from cdc_jax.models.cdc import CDC

    model = CDC(COMPACT)
    for call in (lambda: model.compress(image(), quality=jnp.ones(1)), model.compressor.prior.median_loss):
        with pytest.raises(TypeError, match="no weights"):
            call()
    with pytest.raises(TypeError, match="no weights"):
        CDC(ModelConfig(width=2)).compress(image())


class TestRatesGradient:
    """σ and the prior get the gradient of the rounded values' rate; y, z, μ and the gains that of noisy values."""

    @staticmethod
    def parts():
        random = np.random.default_rng(0)
        y_shape, z_shape = (1, 4, 4, COMPACT.latent_channels), (1, 1, 1, COMPACT.hyper_channels)

        def draw(shape, scale):
            return jnp.asarray(random.normal(0, scale, shape), jnp.float32)

        y, z, mean = draw(y_shape, 2), draw(z_shape, 3), draw(y_shape, 1)
        scale = jnp.exp(draw(y_shape, 0.5))
        gain = jnp.exp(draw((1, 1, 1, COMPACT.latent_channels), 0.3))
        return {"y": y, "z": z, "mean": mean, "scale": scale, "gain": gain}

    @staticmethod
    def bits(weights, noise, y, z, mean, scale, gain):
        """The model's rate. Rounded values are constants: their straight-through gradient is tested elsewhere."""
        model = merge(COMPACT, weights)
        constant = jax.lax.stop_gradient
        rounded = constant(jnp.round((y - mean) * gain) / gain + mean)
        medians = constant(model.compressor.prior.medians[...])
        z_hat = constant(jnp.round(z - medians) + medians)
        y_bits, z_bits = model._rounded_bits(y, z, rounded, z_hat, mean, scale, gain, noise)
        return jnp.sum(y_bits + z_bits)

    @staticmethod
    def prior_of(gradients):
        names = sorted(name for name in gradients if ".prior." in name and "medians" not in name)
        return jnp.concatenate([gradients[name].ravel() for name in names])

    def test_the_value_is_the_rounded_rate_whatever_the_noise(self):
        weights, parts = initial_weights(COMPACT, 0), self.parts()
        with_noise = self.bits(weights, rounding_noise(COMPACT), **parts)
        assert float(with_noise) == pytest.approx(float(self.bits(weights, None, **parts)), rel=1e-6)

    def test_scales_and_prior_follow_the_rounded_rate_alone(self):
        parts, weights = self.parts(), initial_weights(COMPACT, 0)
        noise = rounding_noise(COMPACT)

        def gradients(noise):
            def loss(weights, scale):
                return self.bits(weights, noise, **{**parts, "scale": scale})

            by_weights, by_scale = jax.jit(jax.grad(loss, argnums=(0, 1)))(weights, parts["scale"])
            return self.prior_of(by_weights), by_scale

        for found, expected in zip(gradients(noise), gradients(None), strict=True):
            assert float(jnp.abs(expected).max()) > 0
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    def test_latents_means_and_gains_follow_the_noisy_rate_alone(self):
        parts, weights = self.parts(), initial_weights(COMPACT, 0)
        noise = rounding_noise(COMPACT)

        def smooth(y, z, mean, gain):
            sigma = jax.lax.stop_gradient(parts["scale"] / parts["gain"]) * gain
            prior = merge(COMPACT, weights).compressor.prior
            y_bits = likelihood_bits(gaussian_likelihood(y * gain + noise[0], mean * gain, sigma))
            return jnp.sum(y_bits + likelihood_bits(prior.likelihood(z + noise[1])))

        def ours(y, z, mean, gain):
            return self.bits(weights, noise, y, z, mean, parts["scale"], gain)

        names = ("y", "z", "mean", "gain")
        arguments = [parts[name] for name in names]
        expected, found = (jax.jit(jax.grad(f, argnums=(0, 1, 2, 3)))(*arguments) for f in (smooth, ours))
        for name, a, b in zip(names, found, expected, strict=True):
            assert float(jnp.abs(b).max()) > 0, name
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)

    def test_without_noise_nothing_but_scales_and_prior_has_a_gradient(self):
        parts, weights = self.parts(), initial_weights(COMPACT, 0)
        gradients = jax.grad(lambda p: self.bits(weights, None, **{**parts, **p}))(
            {name: parts[name] for name in ("y", "z", "mean", "gain")}
        )
        assert not any(jnp.any(g) for g in gradients.values())
