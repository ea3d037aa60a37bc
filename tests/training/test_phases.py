"""The two phases of the paper's recipe."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from cdc_jax.errors import ConfigError
from cdc_jax.training.config import default_config
from cdc_jax.training.optimizer import ema_decay
from cdc_jax.training.phases import apply_phase


def test_phases_of_the_recipe():
    warmup = apply_phase(default_config(), "warmup")
    assert (warmup.loss.beta, warmup.loss.rho, warmup.train.steps) == (1e-6, 0, 700_000)
    rate = apply_phase(default_config(), "rate,beta=0.0128,rho=0.9,init_from=runs/a")
    assert (rate.loss.beta, rate.loss.rho, rate.init_from, rate.train.steps) == (0.0128, 0.9, "runs/a", 1_000_000)
    assert float(ema_decay(rate, jnp.int32(10))) == pytest.approx(0.999) and float(ema_decay(rate, jnp.int32(11))) == 1
    epsilon = apply_phase(default_config(), "warmup,prediction=epsilon")
    assert epsilon.model.prediction == "epsilon" and not epsilon.ema.enabled and epsilon.optimizer.clip_norm == 0
    better_decoder = apply_phase(
        default_config(), "rate,beta=0.01,init_from=runs/a,init_weights=raw,freeze_entropy=true"
    )
    assert (better_decoder.init_weights, better_decoder.freeze_entropy) == ("raw", True)
    assert (rate.init_weights, rate.freeze_entropy) == ("ema", False)
    invalid = {"rate": "beta", "cool": "phase", "warmup,rho=much": "rho", "warmup,x=1": "x=1"}
    invalid |= {"warmup,prediction=eps": "eps", "warmup,freeze_entropy=perhaps": "perhaps"}
    for argument, word in invalid.items():
        with pytest.raises(ConfigError, match=word):
            apply_phase(default_config(), argument)
