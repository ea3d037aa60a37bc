"""The rate weight during a run, the weights of images, and LPIPS in the loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.models.params import shapes
from cdc_jax.training import loss as loss_module
from cdc_jax.training.config import model_config
from cdc_jax.training.loss import beta_at, hyper_weight_at, loss_and_metrics
from cdc_jax.training.randomness import step_randomness
from tests.helpers.compact import compact_training_config
from tests.helpers.training import tiny_config


def test_beta_rises_geometrically():
    config = tiny_config(**{"loss.beta_start": 1e-6, "loss.beta": 1e-2, "loss.beta_ramp_steps": 100})
    for step, beta in ((0, 1e-6), (50, 1e-4), (100, 1e-2), (1000, 1e-2)):
        assert float(beta_at(config, jnp.int32(step))) == pytest.approx(beta, rel=1e-4)


def test_the_weight_of_the_hyperprior_s_bits_rises_linearly():
    config = tiny_config(**{"loss.hyper_ramp_steps": 100})
    for step, weight in ((0, 0.1), (50, 0.55), (100, 1.0), (1000, 1.0)):
        assert float(hyper_weight_at(config, jnp.int32(step))) == pytest.approx(weight, rel=1e-6)
    assert float(hyper_weight_at(tiny_config(), jnp.int32(0))) == 1


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
