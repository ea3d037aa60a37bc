"""The optimizer and the moving average of the weights, after the original's training recipe."""

from __future__ import annotations

import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Float, Int


def learning_rate_schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
    """Step → learning rate, after `config.optimizer` and `config.train.steps`."""
    options = config.optimizer
    if options.schedule == "step":
        drop = options.final_rate / options.learning_rate
        schedule = optax.piecewise_constant_schedule(options.learning_rate, {options.drop_step: drop})
    else:
        steps = max(config.train.steps - options.warmup_steps, 1)
        schedule = optax.cosine_decay_schedule(
            options.learning_rate, steps, alpha=options.final_rate / options.learning_rate
        )
    if options.warmup_steps:
        ramp = optax.linear_schedule(0.0, options.learning_rate, options.warmup_steps)
        schedule = optax.join_schedules([ramp, schedule], [options.warmup_steps])
    return schedule


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adam. Gradients go through `clip` first."""
    return optax.adam(learning_rate_schedule(config))


def clip(
    config: ml_collections.ConfigDict, gradients: Float[Array, " n"], norm: Float[Array, ""]
) -> Float[Array, " n"]:
    """Gradients scaled down to the global norm `config.optimizer.clip_norm` where they exceed it; 0 clips nothing."""
    limit = config.optimizer.clip_norm
    return gradients * jnp.minimum(1.0, limit / norm) if limit else gradients


def ema_decay(config: ml_collections.ConfigDict, step: Int[Array, ""]) -> Float[Array, ""]:
    """Decay of the moving average when it is called after step k = 0, 1, 2 …

    1 (no change) unless k is a multiple of `every`; 0 (a copy) up to k = start + every; from then on
    min(max_decay, 1 − (1 + s)^−¾) with s = k − start. Without `warm_up`, max_decay from the start.
    """
    options = config.ema
    since = jnp.maximum(step - options.start, 0).astype(jnp.float32)
    decay = jnp.minimum(options.max_decay, 1 - (1 + since) ** -0.75)
    decay = jnp.where(step <= options.start + options.every, 0.0, decay)
    if not options.warm_up:
        decay = jnp.float32(options.max_decay)
    return jnp.where(step % options.every == 0, decay, 1.0)


def update_ema(ema: Float[Array, " n"], weights: Float[Array, " n"], decay: Float[Array, ""]) -> Float[Array, " n"]:
    """decay·ema + (1 − decay)·weights."""
    return decay * ema + (1 - decay) * weights
