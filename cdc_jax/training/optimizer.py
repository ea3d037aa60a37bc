"""The optimizer and the moving average of the weights, after the original's training recipe."""

from __future__ import annotations

import jax.numpy as jnp
import ml_collections
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from cdc_jax.models.params import Params

_GAINS = ("compressor.transform.log2_gain", "compressor.transform.gain_steps")
_TRANSFORM = ("compressor.transform.analysis", "compressor.transform.synthesis")
_HYPERPRIOR = tuple(f"compressor.{part}." for part in ("hyper_encoder", "hyper_decoder", "checkerboard", "prior"))


def learning_rate_schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
    """Step → learning rate, after `config.optimizer` and `config.train.steps`."""
    options = config.optimizer
    if options.schedule == "step":
        drop = options.final_learning_rate / options.learning_rate
        schedule = optax.piecewise_constant_schedule(options.learning_rate, {options.drop_step: drop})
    elif options.schedule == "trapezoid":
        start = max(config.train.steps - options.cooldown_steps - options.warmup_steps, 0)
        cooldown = optax.linear_schedule(
            options.learning_rate, options.final_learning_rate, max(options.cooldown_steps, 1)
        )
        schedule = optax.join_schedules([optax.constant_schedule(options.learning_rate), cooldown], [start])
    else:
        steps = max(config.train.steps - options.warmup_steps, 1)
        schedule = optax.cosine_decay_schedule(
            options.learning_rate, steps, alpha=options.final_learning_rate / options.learning_rate
        )
    if options.warmup_steps:
        ramp = optax.linear_schedule(0.0, options.learning_rate, options.warmup_steps)
        schedule = optax.join_schedules([ramp, schedule], [options.warmup_steps])
    return schedule


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adam. Gradients go through `clip` first."""
    return optax.adam(learning_rate_schedule(config), b2=config.optimizer.b2)


def learning_rate_factors(config: ml_collections.ConfigDict, params: Params) -> Float[Array, " n"] | None:
    """Factors on the learning rate of each weight, in the order of `ravel_pytree`; None where all are 1."""
    options = config.optimizer
    groups = {
        _GAINS: options.gains_factor,
        _HYPERPRIOR: options.hyperprior_factor,
        _TRANSFORM: options.transform_factor,
    }
    if all(factor == 1 for factor in groups.values()):
        return None

    def factor(name: str) -> float:
        return next((value for prefixes, value in groups.items() if name.startswith(prefixes)), 1.0)

    return ravel_pytree({name: jnp.full(value.shape, factor(name), jnp.float32) for name, value in params.items()})[0]


def clip(
    config: ml_collections.ConfigDict, gradients: Float[Array, " n"], norm: Float[Array, ""]
) -> Float[Array, " n"]:
    """Gradients scaled down to the global norm `config.optimizer.clip_norm` where they exceed it; 0 clips nothing."""
    limit = config.optimizer.clip_norm
    return gradients * jnp.minimum(1.0, limit / norm) if limit else gradients


def ema_decay(config: ml_collections.ConfigDict, step: Int[Array, ""]) -> Float[Array, ""]:
    """Decay of the moving average when it is called after step k = 0, 1, 2 …

    1 (no change) unless k is a multiple of `every`; 0 (a copy) up to k = start + every; from then on
    min(max_decay, 1 − (1 + s)^−¾) with s = k − start. Without `warmup`, max_decay from the start.
    """
    options = config.ema
    since = jnp.maximum(step - options.start, 0).astype(jnp.float32)
    decay = jnp.minimum(options.max_decay, 1 - (1 + since) ** -0.75)
    decay = jnp.where(step <= options.start + options.every, 0.0, decay)
    if not options.warmup:
        decay = jnp.float32(options.max_decay)
    return jnp.where(step % options.every == 0, decay, 1.0)


def update_ema(ema: Float[Array, " n"], weights: Float[Array, " n"], decay: Float[Array, ""]) -> Float[Array, " n"]:
    """decay·ema + (1 − decay)·weights."""
    return decay * ema + (1 - decay) * weights
