"""The rate weight during a run, and the random numbers of each step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.errors import ConfigError
from cdc_jax.models.params import shapes
from cdc_jax.training import loss as loss_module
from cdc_jax.training.config import model_config
from cdc_jax.training.config_checks import check_config
from cdc_jax.training.loss import beta_at, hyper_weight_at, loss_and_metrics, step_randomness
from tests.helpers.compact import compact_training_config
from tests.helpers.training import tiny_config


def test_beta_rises_geometrically():
    config = tiny_config(**{"loss.beta_start": 1e-6, "loss.beta": 1e-2, "loss.beta_ramp_steps": 100})
    for step, beta in ((0, 1e-6), (50, 1e-4), (100, 1e-2), (1000, 1e-2)):
        assert float(beta_at(config, jnp.int32(step))) == pytest.approx(beta, rel=1e-4)


def test_randomness_has_the_documented_shapes_and_ranges():
    config = tiny_config(**{"data.batch_size": 64, "loss.spread_timesteps": False, "loss.max_noise_fraction": 0.0})
    randomness = jax.jit(lambda k: step_randomness(config, k, 64))(jnp.int32(3))
    timesteps = randomness.timesteps
    assert 0 <= timesteps.min() and timesteps.max() < 8193 and len(set(timesteps.tolist())) > 50
    for uniform in (randomness.latent_noise, randomness.hyper_noise):
        assert -0.5 <= uniform.min() < -0.45 and 0.45 < uniform.max() < 0.5
    assert abs(float(randomness.noise.std()) - 1) < 0.01
    assert all(0 <= c <= 64 and c % 16 == 0 for c in randomness.corner.tolist())
    corners = {tuple(step_randomness(config, jnp.int32(k), 64).corner.tolist()) for k in range(30)}
    assert len(corners) > 5


def test_spread_timesteps_cover_every_part_of_the_schedule():
    config = tiny_config(**{"data.batch_size": 8, "loss.spread_timesteps": True, "loss.max_noise_fraction": 0.0})
    randomness = [step_randomness(config, jnp.int32(k), 8).timesteps for k in range(3)]
    for timesteps in randomness:
        assert sorted((np.asarray(timesteps) * 8 // 8193).tolist()) == list(range(8))
    assert len({tuple(timesteps.tolist()) for timesteps in randomness}) == 3


def test_max_noise_fraction_is_drawn_at_the_noisiest_level():
    config = tiny_config(**{"data.batch_size": 8, "loss.max_noise_fraction": 0.25})
    timesteps = step_randomness(config, jnp.int32(0), 8).timesteps
    assert (timesteps[:2] == 8192).all() and (timesteps[2:] < 8192).all()


def test_the_weight_of_the_hyperprior_s_bits_rises_linearly():
    config = tiny_config(**{"loss.hyper_ramp_steps": 100})
    for step, weight in ((0, 0.1), (50, 0.55), (100, 1.0), (1000, 1.0)):
        assert float(hyper_weight_at(config, jnp.int32(step))) == pytest.approx(weight, rel=1e-6)
    assert float(hyper_weight_at(tiny_config(), jnp.int32(0))) == 1


def test_some_images_at_the_noisiest_level_see_less_noise_or_none():
    fractions = {"loss.max_noise_fraction": 0.75, "loss.silent_fraction": 0.5, "loss.max_noise_gamma": 0.8}
    randomness = step_randomness(tiny_config(**{"data.batch_size": 8, **fractions}), jnp.int32(0), 8)
    np.testing.assert_allclose(randomness.noise_scale, [0, 0, 0, 0, 0.8, 0.8, 1, 1], rtol=1e-6)
    assert (randomness.timesteps[:6] == 8192).all() and (randomness.timesteps[6:] < 8192).all()
    plain = step_randomness(tiny_config(**{"data.batch_size": 8}), jnp.int32(0), 8)
    assert (plain.noise_scale == 1).all()
    np.testing.assert_array_equal(plain.noise, randomness.noise)


@pytest.mark.parametrize("fraction", [-0.1, 0.6])
def test_silent_images_are_among_those_at_the_noisiest_level(fraction):
    settings = {"loss.max_noise_fraction": 0.5, "loss.silent_fraction": fraction}
    with pytest.raises(
        ConfigError, match=f"silent_fraction is {fraction}; .* between 0 and loss.max_noise_fraction, 0.5"
    ):
        check_config(tiny_config(**settings))


def test_qualities_are_spread_over_the_batch():
    config = compact_training_config(**{"data.batch_size": 8})
    draws = [np.asarray(step_randomness(config, jnp.int32(k), 8).quality) for k in range(3)]
    for qualities in draws:
        assert sorted((qualities * 8).astype(int).tolist()) == list(range(8))
    assert len({qualities[0] for qualities in draws}) == 3
    assert (step_randomness(tiny_config(), jnp.int32(0), 8).quality == 0).all()


def test_images_count_by_their_rate():
    """The weight is proportional to β^−balance and 1 at the middle quality; β falls from beta_max to beta_min."""
    quality = jnp.array([0.0, 0.25, 0.5, 1.0])
    config = compact_training_config(**{"loss.rate_balance": 0.5})
    beta, importance = loss_module._rate_weights(config, model_config(config), quality, 123.0)
    np.testing.assert_allclose(beta, [1, 64**-0.25, 1 / 8, 1 / 64], rtol=1e-6)
    np.testing.assert_allclose(importance, (np.asarray(beta) * 8) ** -0.5, rtol=1e-6)
    config = compact_training_config(**{"loss.rate_balance": 0.0})
    assert (loss_module._rate_weights(config, model_config(config), quality, 123.0)[1] == 1).all()
    config = tiny_config(**{"loss.rate_balance": 0.5})
    beta, importance = loss_module._rate_weights(config, model_config(config), quality, 123.0)
    assert beta == 123.0 and (importance == 1).all()


@pytest.mark.parametrize(("images", "seen"), [(0, 4), (3, 3), (1, 1)])
def test_lpips_is_taken_on_the_first_images(images, seen, monkeypatch):
    """The loss is traced, not computed, and LPIPS replaced by a function that records its arguments' shapes."""
    calls = []

    def lpips(perceptual, x, y):
        calls.append((x.shape, y.shape))
        return jnp.zeros(len(x))

    monkeypatch.setattr(loss_module, "lpips", lpips)
    config = compact_training_config(**{"loss.rho": 0.1, "loss.lpips_images": images, "data.batch_size": 4})

    def metrics(params, image, perceptual):
        randomness = step_randomness(config, jnp.int32(0), 4)
        return loss_and_metrics(config, params, image, randomness, 1.0, perceptual)[1]

    image = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)
    params = shapes(model_config(config))
    assert "lpips" in jax.eval_shape(metrics, params, image, {"weight": 1.0})
    assert calls == [((seen, 64, 64, 3),) * 2]
    assert "lpips" not in jax.eval_shape(metrics, params, image, {})
    assert len(calls) == 1
