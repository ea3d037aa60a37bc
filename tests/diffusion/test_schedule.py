"""Noise schedules, compared with the original program's, and their properties."""

import numpy as np
import pytest

from cdc_jax.diffusion.schedule import Schedule, cosine_schedule, linear_schedule, schedule_for
from cdc_jax.models.config import ModelConfig


def test_golden_values_to_the_last(golden):
    schedule = schedule_for(golden.config)
    reference = golden["alphas_cumprod"]
    alpha_bar = schedule.alpha_bar[:: schedule.num_timesteps // 64][: len(reference)]
    np.testing.assert_allclose(alpha_bar, reference, rtol=1e-6)


@pytest.mark.parametrize("schedule", [cosine_schedule(8193), linear_schedule(20000)])
def test_power_falls_from_one_to_nothing(schedule):
    assert schedule.alpha_bar.dtype == np.float32
    assert (np.diff(schedule.alpha_bar) <= 0).all()
    assert schedule.alpha_bar[0] > 0.9999 and 0 < schedule.alpha_bar[-1] < 1e-4


def test_cosine_ends_at_3_6e_11():
    assert cosine_schedule(8193).alpha_bar[-1] == pytest.approx(3.6e-11, rel=0.01)


def test_timesteps_are_exact_integers():
    schedule = cosine_schedule(8193)
    for steps in (2, 5, 15, 17, 27, 65, 8193):
        expected = [j * 8192 // (steps - 1) for j in reversed(range(steps))]
        assert schedule.ddim_timesteps(steps).tolist() == expected
    assert schedule.ddim_timesteps(1).tolist() == [8192]


@pytest.mark.parametrize("steps", [0, -1, 8194])
def test_invalid_step_counts(steps):
    with pytest.raises(ValueError, match="steps"):
        cosine_schedule(8193).ddim_timesteps(steps)


def test_epsilon_has_the_linear_one():
    assert schedule_for(ModelConfig(prediction="epsilon")).num_timesteps == 20000
    assert isinstance(schedule_for(ModelConfig(prediction="v")), Schedule)
    np.testing.assert_array_equal(
        schedule_for(ModelConfig(prediction="v")).alpha_bar, schedule_for(ModelConfig()).alpha_bar
    )
