"""Learning rates and the moving average of the recipe."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from cdc_jax.training.config import default_config
from cdc_jax.training.optimizer import ema_decay, learning_rate_schedule
from tests.helpers.training import tiny_config


def test_learning_rates_of_the_paper():
    schedule = learning_rate_schedule(default_config())
    for step, rate in ((0, 5e-5), (99_999, 5e-5), (100_001, 1e-5), (700_000, 1e-5)):
        assert schedule(step) == pytest.approx(rate, rel=1e-5)


def test_cosine_learning_rate():
    config = tiny_config()
    schedule = learning_rate_schedule(config)
    rates = [float(schedule(step)) for step in range(config.train.steps + 1)]
    assert rates[0] < max(rates) == pytest.approx(config.optimizer.learning_rate, rel=1e-3)
    assert rates[-1] == pytest.approx(config.optimizer.final_learning_rate, rel=1e-3)


def test_ema_decay_of_the_recipe():
    config = default_config()
    decays = {k: float(ema_decay(config, jnp.int32(k))) for k in (0, 5, 10, 100, 110, 111, 120, 130, 200, 10**6)}
    assert decays[0] == decays[10] == decays[100] == decays[110] == 0  # a copy
    assert decays[5] == decays[111] == 1  # nothing
    for k in (120, 130, 200):
        assert decays[k] == pytest.approx(1 - (1 + k - 100) ** -0.75, rel=1e-5)
    assert decays[10**6] == pytest.approx(0.999)
