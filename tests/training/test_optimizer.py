"""Learning rates and the moving average of the recipe."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cdc_jax.models.params import shapes
from cdc_jax.training.config import default_config
from cdc_jax.training.optimizer import ema_decay, learning_rate_factors, learning_rate_schedule, make_optimizer
from tests.helpers.compact import COMPACT
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


def test_trapezoid_learning_rate():
    config = default_config()
    config.train.steps = 1000
    config.optimizer.update(
        {"schedule": "trapezoid", "learning_rate": 0.02, "final_learning_rate": 0.01, "warmup_steps": 100}
    )
    config.optimizer.cooldown_steps = 400
    schedule = learning_rate_schedule(config)
    for step, rate in ((0, 0), (50, 0.01), (100, 0.02), (350, 0.02), (600, 0.02), (800, 0.015), (1000, 0.01)):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-9), step


FACTORS = {
    "optimizer.gains_factor": 24.0,
    "optimizer.hyperprior_factor": 6.0,
    "optimizer.transform_factor": 0.5,
    "optimizer.encoder_factor": 3.0,
    "optimizer.output_factor": 0.25,
}
PARTS = {
    "compressor.transform.log2_gain": 24.0,
    "compressor.transform.gain_steps": 24.0,
    "compressor.transform.analysis": 0.5,
    "compressor.transform.synthesis": 0.5,
    "compressor.hyper_encoder": 6.0,
    "compressor.hyper_decoder": 6.0,
    "compressor.checkerboard": 6.0,
    "compressor.prior": 6.0,
    "compressor.encoder": 3.0,
    "compressor.context_decoder": 1.0,
    "unet": 1.0,
}
STEADY = {"optimizer.schedule": "step", "optimizer.learning_rate": 0.1, "optimizer.warmup_steps": 0}
OUTPUTS = (
    "compressor.encoder.out",
    "compressor.hyper_decoder.convs.2",
    "compressor.checkerboard.out",
    "unet.final_conv",
)


def test_learning_rate_factors_of_each_part():
    params = {name: np.zeros(leaf.shape, np.float32) for name, leaf in shapes(COMPACT).items()}
    vector, unravel = ravel_pytree(params)
    factors = learning_rate_factors(tiny_config(**FACTORS), params)
    assert factors.shape == vector.shape
    seen = set()
    for name, values in unravel(factors).items():
        if name == "compressor.transform.deviations":  # not trained
            continue
        (part,) = (part for part in PARTS if name.startswith(part))
        assert (values == PARTS[part] * (0.25 if name.startswith(OUTPUTS) else 1)).all(), name
        seen.add(part)
    assert seen == PARTS.keys()
    assert learning_rate_factors(tiny_config(), params) is None


def test_kernels_with_many_inputs_learn_more_slowly():
    params = {"unet.a.kernel": np.zeros((3, 3, 8, 2)), "unet.b.kernel": np.zeros((4, 9)), "unet.a.bias": np.zeros(99)}
    _, unravel = ravel_pytree(params)
    factors = unravel(learning_rate_factors(tiny_config(**{"optimizer.max_fan_in": 18}), params))
    assert {name: set(np.asarray(values).ravel()) for name, values in factors.items()} == {
        "unet.a.kernel": {0.25}, "unet.b.kernel": {1.0}, "unet.a.bias": {1.0}
    }  # fmt: skip


def test_epsilon_decides_on_gradients_that_are_smaller():
    for epsilon, moved in ((1e-15, 0.1), (1e-8, 0.1 * 1e-10 / (1e-10 + 1e-8))):
        optimizer = make_optimizer(tiny_config(**STEADY | {"optimizer.epsilon": epsilon}), {"unet.a": jnp.zeros(1)})
        updates, _ = optimizer.update(jnp.full(1, 1e-10), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
        np.testing.assert_allclose(updates, -moved, rtol=1e-4)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_the_update_is_adam_s_of_clipped_gradients_times_the_factors(clip_norm):
    """Against Adam written out, in float64; the first gradient is much longer than the others."""
    config = tiny_config(**FACTORS | {"optimizer.clip_norm": clip_norm, "optimizer.schedule": "step"})
    config.optimizer.update({"learning_rate": 0.1, "warmup_steps": 0, "b2": 0.9})
    names = ("compressor.encoder.a", "compressor.prior.b", "compressor.transform.log2_gain")
    with jax.enable_x64(True):
        params = {name: jnp.zeros(2) for name in names}
        factors = np.repeat([3.0, 6.0, 24.0], 2)
        optimizer, weights = make_optimizer(config, params), jnp.zeros(6)
        state = optimizer.init(weights)
        mean, square = np.zeros(6), np.zeros(6)
        for step, length in enumerate([50.0, 0.5, 0.9], start=1):
            gradient = np.arange(-2.0, 4.0)
            gradient *= length / np.linalg.norm(gradient)
            updates, state = optimizer.update(jnp.asarray(gradient), state, weights)
            gradient *= 1 / length if clip_norm and length > 1 else 1
            mean, square = 0.9 * mean + 0.1 * gradient, 0.9 * square + 0.1 * gradient**2
            expected = -0.1 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.9**step)) + 1e-8)
            np.testing.assert_allclose(updates, factors * expected, rtol=1e-6)


def test_the_optimizer_s_state_has_the_arrays_that_older_checkpoints_hold():
    """Two counts of steps and Adam's two moments, in this order."""
    params = {"unet.a": jnp.zeros((2, 3)), "unet.b": jnp.zeros(4)}
    state = make_optimizer(tiny_config(**FACTORS), params).init(jnp.zeros(10))
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)] == [
        ((), jnp.int32),
        ((10,), jnp.float32),
        ((10,), jnp.float32),
        ((), jnp.int32),
    ]
