"""One training step: the loss, its gradient, and the update. Pure functions, to be jitted.

    loss = β_rate · bpp + diffusion loss + prior's median loss

Every random draw of step k follows from (seed, k) and the image's place in the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from cdc_jax.config import model_config
from cdc_jax.diffusion.process import Level, add_noise, diffusion_loss
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.models.config import STRIDE
from cdc_jax.models.initial import initial_weights
from cdc_jax.models.params import Params, merge
from cdc_jax.optimizer import ema_decay, make_optimizer, update_ema
from cdc_jax.pixels import to_unit_range

LATENT_STRIDE = 16  # pixels per cell of y


class TrainState(NamedTuple):
    """All that a step changes. `ema` is the weights themselves where the recipe has no moving average."""

    step: Int[Array, ""]
    params: Params
    ema: Params
    optimizer: optax.OptState


class Draws(NamedTuple):
    """The random numbers of one step.

    Attributes:
      timesteps: n, uniform on {0, …, T−1}, one per image; spread evenly over the batch where the configuration asks
        for it (the low-discrepancy sampler of Kingma et al. 2021, appendix I.1), which steadies small batches. For its
        `content_share`, n = T − 1: no noisy image helps there, the U-Net has to learn to read the context maps.
      noise: ε ~ N(0, 1) for the denoised region.
      latent_noise, hyper_noise: U(−½, ½) for y and z.
      corner: top left corner of the denoised region, in pixels, multiples of 16; one for the batch.
    """

    timesteps: Int[Array, " b"]
    noise: Float[Array, "b s s 3"]
    latent_noise: Float[Array, "b h w c"]
    hyper_noise: Float[Array, "b h w c"]
    corner: Int[Array, " 2"]


def init_state(config: ml_collections.ConfigDict) -> TrainState:
    """Fresh weights and optimizer at step 0."""
    weights = initial_weights(model_config(config), config.seed, latent_gain=config.init.latent_gain)
    params = jax.device_put(weights)
    ema = jax.device_put(weights) if config.ema.enabled else {}
    return TrainState(jnp.int32(0), params, ema, jax.jit(make_optimizer(config).init)(params))


def draw(config: ml_collections.ConfigDict, step: Int[Array, ""]) -> Draws:
    """The random numbers of step k."""
    model = model_config(config)
    batch, crop, window = config.data.batch_size, config.data.crop, config.loss.window or config.data.crop
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    corner_key, batch_key = jax.random.split(key)
    corner = jax.random.randint(corner_key, (2,), 0, (crop - window) // LATENT_STRIDE + 1) * LATENT_STRIDE

    def one(index):
        keys = jax.random.split(jax.random.fold_in(batch_key, index), 4)
        y, z = crop // LATENT_STRIDE, crop // STRIDE
        channels = model.latent_channels
        return (
            jax.random.uniform(keys[0]),
            jax.random.normal(keys[1], (window, window, 3), jnp.float32),
            jax.random.uniform(keys[2], (y, y, channels), jnp.float32, -0.5, 0.5),
            jax.random.uniform(keys[3], (z, z, channels), jnp.float32, -0.5, 0.5),
        )

    fractions, *noises = jax.vmap(one)(jnp.arange(batch))
    if config.loss.spread_timesteps:
        fractions = (fractions[0] + jnp.arange(batch) / batch) % 1
    timesteps = jnp.minimum((fractions * model.num_timesteps).astype(jnp.int32), model.num_timesteps - 1)
    is_content = jnp.arange(batch) < round(config.loss.content_share * batch)
    timesteps = jnp.where(is_content, model.num_timesteps - 1, timesteps)
    return Draws(timesteps, *noises, corner)


def loss_and_metrics(
    config: ml_collections.ConfigDict,
    params: Params,
    image: Float[Array, "b h w 3"],
    draws: Draws,
    beta: float | Float[Array, ""],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss and its terms on a batch of square images in [−1, 1].

    The rate is taken on the whole crop, where the hyperprior sees what it will see of whole pictures; the U-Net, which
    costs most, on a region of it, cut from image and context maps alike.
    """
    model_settings = model_config(config)
    precision = None if config.train.unet_precision == "default" else config.train.unet_precision
    model = merge(model_settings, params, unet_precision=precision)
    compressed = model.compress(image, (draws.latent_noise, draws.hyper_noise))
    bpp = jnp.mean(compressed.rate_bits) / (image.shape[1] * image.shape[2])

    size = draws.noise.shape[1]
    target = _cut(image, draws.corner, size)
    context = tuple(_cut(m, draws.corner >> level, size >> level) for level, m in enumerate(compressed.context))

    schedule = schedule_for(model_settings)
    alpha_bar = jnp.asarray(schedule.alpha_bar)[draws.timesteps]
    noisy = add_noise(target, draws.noise, Level.of(alpha_bar).per_image())
    time = (draws.timesteps / np.float32(schedule.num_timesteps)).astype(jnp.float32)
    output = model.unet(noisy, time, context)
    diffusion = diffusion_loss(
        model_settings.prediction, output, target, draws.noise, alpha_bar, weight_floor=config.loss.weight_floor
    )
    prior = model.compressor.prior.median_loss()
    metrics = {"bpp": bpp, "diffusion_loss": diffusion, "prior_loss": prior}
    return beta * bpp + diffusion + prior, metrics


def _cut(x: Float[Array, "b h w c"], corner: Int[Array, " 2"], size: int) -> Float[Array, "b s s c"]:
    if x.shape[1:3] == (size, size):
        return x
    return jax.lax.dynamic_slice(x, (0, corner[0], corner[1], 0), (x.shape[0], size, size, x.shape[3]))


def beta_at(config: ml_collections.ConfigDict, step: Int[Array, ""]) -> Float[Array, ""]:
    """β_rate at a step: from beta_start to beta, geometrically."""
    options = config.loss
    if not options.beta_ramp_steps:
        return jnp.float32(options.beta)
    progress = jnp.minimum(step / options.beta_ramp_steps, 1.0)
    return options.beta_start * (options.beta / options.beta_start) ** progress


def train_step(
    config: ml_collections.ConfigDict, state: TrainState, images: UInt8[Array, "b h w 3"]
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Gradient, update, moving average. Returns the new state and the step's metrics."""
    beta = beta_at(config, state.step)

    def loss(params):
        return loss_and_metrics(config, params, to_unit_range(images), draw(config, state.step), beta)

    (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, optimizer = make_optimizer(config).update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = update_ema(state.ema, params, ema_decay(config, state.step)) if config.ema.enabled else state.ema
    metrics |= {"loss": value, "gradient_norm": optax.global_norm(gradients), "beta": beta}
    return TrainState(state.step + 1, params, ema, optimizer), metrics
