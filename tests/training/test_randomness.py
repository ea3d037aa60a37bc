"""The random numbers of a training step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.errors import ConfigError
from cdc_jax.training.config_checks import check_config
from cdc_jax.training.randomness import step_randomness
from tests.helpers.compact import compact_training_config
from tests.helpers.training import tiny_config


def test_randomness_has_the_documented_shapes_and_ranges():
    config = tiny_config(**{"data.batch_size": 64, "loss.spread_timesteps": False, "loss.max_noise_fraction": 0.0})
    randomness = jax.jit(lambda k: step_randomness(config, k, 64))(jnp.int32(3))
    timesteps = randomness.timesteps
    assert 0 <= timesteps.min() and timesteps.max() < 8193 and len(set(timesteps.tolist())) > 50
    for uniform in randomness.rounding_noise:
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
