"""The optimizer and the moving average of the weights, as in the paper's recipe."""

from __future__ import annotations

import math

import jax.numpy as jnp
import ml_collections
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from cdc_jax.models.params import Params
from cdc_jax.models.weight_groups import Part, is_output, part_of


def learning_rate_schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
    """The learning rate as a function of the step, counted from 0.

    It rises linearly over `warmup_steps`, then follows `schedule`: a drop at `drop_step`, a cosine, or a constant with
    a linear cooldown over the last `cooldown_steps` of `train.steps`.
    """
    options = config.optimizer
    peak, final = options.learning_rate, options.final_learning_rate
    if options.schedule == "step":
        schedule = optax.piecewise_constant_schedule(peak, {options.drop_step: final / peak})
    elif options.schedule == "trapezoid":
        start = max(config.train.steps - options.cooldown_steps - options.warmup_steps, 0)
        cooldown = optax.linear_schedule(peak, final, max(options.cooldown_steps, 1))
        schedule = optax.join_schedules([optax.constant_schedule(peak), cooldown], [start])
    else:
        steps = max(config.train.steps - options.warmup_steps, 1)
        schedule = optax.cosine_decay_schedule(peak, steps, alpha=final / peak)
    if options.warmup_steps:
        ramp = optax.linear_schedule(0.0, peak, options.warmup_steps)
        schedule = optax.join_schedules([ramp, schedule], [options.warmup_steps])
    return schedule


def make_optimizer(config: ml_collections.ConfigDict, params: Params) -> optax.GradientTransformation:
    """Clipping by the global norm, then Adam with a separate learning rate for each part of the model.

    The optimizer works on one vector: all weights, concatenated by `ravel_pytree`.

    Args:
      config: the run's settings. If `optimizer.clip_norm` is 0, nothing is clipped.
      params: the trained weights by name; only their names and shapes are used.
    """
    options = config.optimizer
    clip = optax.clip_by_global_norm(options.clip_norm) if options.clip_norm else optax.identity()
    factors = learning_rate_factors(config, params)
    scale = optax.identity() if factors is None else optax.stateless(lambda updates, _: factors * updates)
    return optax.chain(clip, optax.adam(learning_rate_schedule(config), b2=options.b2, eps=options.epsilon), scale)


def learning_rate_factors(config: ml_collections.ConfigDict, params: Params) -> Float[Array, " n"] | None:
    """The learning rate factor of every weight, in the order of `ravel_pytree`; None if all are 1."""
    factors = {name: _factor(config, name, leaf.shape) for name, leaf in params.items()}
    if all(factor == 1 for factor in factors.values()):
        return None
    return ravel_pytree({name: jnp.full(leaf.shape, factors[name], jnp.float32) for name, leaf in params.items()})[0]


def _factor(config: ml_collections.ConfigDict, name: str, shape: tuple[int, ...]) -> float:
    """The learning rate factor of a weight: the product of the factors of its part, its layer and its fan-in."""
    options = config.optimizer
    parts = {
        Part.GAINS: options.gains_factor,
        Part.HYPERPRIOR: options.hyperprior_factor,
        Part.ENCODER: options.encoder_factor,
        Part.ANALYSIS: options.transform_factor,
        Part.SYNTHESIS: options.transform_factor,
    }
    factor = parts.get(part_of(name), 1.0) * (options.output_factor if is_output(name) else 1.0)
    if options.max_fan_in and name.endswith(".kernel"):
        factor *= min(options.max_fan_in / math.prod(shape[:-1]), 1.0)
    return factor


def ema_decay(config: ml_collections.ConfigDict, step: Int[Array, ""]) -> Float[Array, ""]:
    """The decay of the moving average, in [0, 1], after step k = 0, 1, 2, …

    The decay is 1 (no change) unless k is a multiple of `every`, and 0 (a copy) up to k = start + every. After that it
    is min(max_decay, 1 − (1 + s)^−¾) with s = k − start. Without `warmup`, it is max_decay from the first step on.
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
