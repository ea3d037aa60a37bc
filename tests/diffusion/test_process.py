"""The equations of the diffusion process, for all three prediction types."""

import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.diffusion.process import NoiseLevel, add_noise, diffusion_loss, estimate, one_step_image, target

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.uniform(-1, 1, (3, 4, 4, 3)).astype(np.float32)
NOISE = RANDOM.normal(size=(3, 4, 4, 3)).astype(np.float32)
ALPHA_BAR = np.array([0.95, 0.5, 0.02], np.float32)
LEVEL = NoiseLevel.of(jnp.asarray(ALPHA_BAR)).per_image()


@pytest.mark.parametrize("prediction", ["x", "epsilon", "v"])
def test_a_perfect_prediction_gives_image_and_noise_back(prediction):
    noisy = add_noise(IMAGE, NOISE, LEVEL)
    estimated = estimate(prediction, target(prediction, IMAGE, NOISE, LEVEL), noisy, LEVEL)
    np.testing.assert_allclose(estimated.image, IMAGE, atol=2e-5)
    np.testing.assert_allclose(estimated.noise, NOISE, atol=2e-5)


@pytest.mark.parametrize("prediction", ["x", "epsilon", "v"])
def test_a_perfect_prediction_has_no_loss(prediction):
    output = target(prediction, IMAGE, NOISE, LEVEL)
    assert diffusion_loss(prediction, output, IMAGE, NOISE, jnp.asarray(ALPHA_BAR)) == 0


def test_x_and_v_clip_the_image_and_epsilon_does_not():
    noisy = add_noise(IMAGE, NOISE, LEVEL)
    far = jnp.full_like(noisy, 7.0)
    for prediction, clipped in (("x", True), ("v", True), ("epsilon", False)):
        estimated = estimate(prediction, far, noisy, LEVEL)
        assert (jnp.max(jnp.abs(estimated.image)) <= 1) == clipped
        again = add_noise(estimated.image, estimated.noise, LEVEL)
        np.testing.assert_allclose(again, noisy, atol=1e-4)  # the two estimates always explain the noisy image


def test_one_step_image_is_not_clipped():
    noisy = add_noise(IMAGE, NOISE, LEVEL)
    assert jnp.max(one_step_image("x", jnp.full_like(noisy, 7.0), noisy, LEVEL)) == 7


def test_weights_by_hand():
    # All errors are 1, so the loss is the mean weight. SNR = ᾱ/(1−ᾱ): 19, 1, 0.0204.
    ones, snr = jnp.ones_like(IMAGE), ALPHA_BAR / (1 - ALPHA_BAR)

    def loss(prediction, **options):
        wanted = target(prediction, IMAGE, NOISE, LEVEL)
        return float(diffusion_loss(prediction, wanted + ones, IMAGE, NOISE, jnp.asarray(ALPHA_BAR), **options))

    assert loss("x") == pytest.approx(np.mean([5, 1, snr[2]]), rel=1e-5)
    assert loss("x", weight_floor=1.0) == pytest.approx(np.mean([5, 1, 1]), rel=1e-5)
    assert loss("v") == pytest.approx(np.mean(np.minimum(snr, 5) / (snr + 1)), rel=1e-5)
    assert loss("epsilon") == pytest.approx(1, rel=1e-6)
