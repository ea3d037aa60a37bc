"""The rate weight over a run, and what is random about each step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.training.loss import beta_at, step_randomness
from tests.helpers.training import tiny_config


def test_beta_rises_geometrically():
    config = tiny_config(**{"loss.beta_start": 1e-6, "loss.beta": 1e-2, "loss.beta_ramp_steps": 100})
    for step, beta in ((0, 1e-6), (50, 1e-4), (100, 1e-2), (1000, 1e-2)):
        assert float(beta_at(config, jnp.int32(step))) == pytest.approx(beta, rel=1e-4)


def test_randomness_is_what_the_recipe_asks_for():
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
