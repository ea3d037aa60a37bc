"""The training loss and the random numbers of a step. Pure functions, to be jitted.

    loss = β_rate · bpp + (1 − ρ) · diffusion loss + ρ · LPIPS(x₀, x̂₀) + prior's median loss

The random numbers of step k depend only on (seed, k) and the image's index in the global batch, not on how the batch
is split over devices and processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int

from cdc_jax.diffusion.process import NoiseLevel, add_noise, diffusion_loss, one_step_image
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.metrics.lpips import load_lpips, lpips
from cdc_jax.models.cdc import CDC
from cdc_jax.models.compressor import Context
from cdc_jax.models.config import LATENT_STRIDE, STRIDE, ModelConfig
from cdc_jax.models.params import Params, merge
from cdc_jax.training.config import model_config


class StepRandomness(NamedTuple):
    """The random numbers of one step. All but `corner` have one entry per image, along the first axis.

    Attributes:
      timesteps: n, uniform on {0, …, T−1}. With `loss.spread_timesteps` they are spread evenly over the batch (the
        low-discrepancy sampler of Kingma et al. 2021, appendix I.1), which lowers the loss's variance. For the first
        `loss.max_noise_fraction` of the batch, n = T − 1: the noisy image carries almost no information there, so the
        U-Net has to learn to use the context maps.
      noise: ε ~ N(0, 1) for the denoised region.
      latent_noise, hyper_noise: U(−½, ½) for y and z.
      corner: (top, left) of the denoised region in pixels, multiples of 16; the same for the whole batch.
      noise_scale: factor on ε: `loss.max_noise_gamma` for the first `loss.max_noise_fraction` of the batch, but 0 for
        the first `loss.silent_fraction`, and 1 for the rest. Decoding likewise starts from γ·ε.
      quality: in [0, 1), spread evenly over the batch; 0 in a single-rate model.
    """

    timesteps: Int[Array, " b"]
    noise: Float[Array, "b s s 3"]
    latent_noise: Float[Array, "b h w c"]
    hyper_noise: Float[Array, "b h w c"]
    corner: Int[Array, " 2"]
    noise_scale: Float[Array, " b"]
    quality: Float[Array, " b"]


def step_randomness(
    config: ml_collections.ConfigDict, step: Int[Array, ""], batch: int, dtype: jnp.dtype = jnp.float32
) -> StepRandomness:
    """Draws the random numbers of a step.

    Args:
      config: the run's settings.
      step: k, counted from 0.
      batch: the number of images in the global batch.
      dtype: the type of all floating-point numbers.
    """
    model = model_config(config)
    crop, size = config.data.crop, config.loss.unet_crop or config.data.crop
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    corner_key, batch_key = jax.random.split(key)
    quality_key = jax.random.fold_in(key, 2)
    corner = jax.random.randint(corner_key, (2,), 0, (crop - size) // LATENT_STRIDE + 1) * LATENT_STRIDE

    def draw(index):
        keys = jax.random.split(jax.random.fold_in(batch_key, index), 4)
        y, z = crop // LATENT_STRIDE, crop // STRIDE
        return (
            jax.random.uniform(keys[0], dtype=dtype),
            jax.random.normal(keys[1], (size, size, 3), dtype),
            jax.random.uniform(keys[2], (y, y, model.latent_channels), dtype, -0.5, 0.5),
            jax.random.uniform(keys[3], (z, z, model.hyper_channels), dtype, -0.5, 0.5),
        )

    fractions, *noises = jax.vmap(draw)(jnp.arange(batch))
    if config.loss.spread_timesteps:
        first = draw(0)[0]  # recomputed on every device: fractions[0] would need communication
        fractions = (first + jnp.arange(batch, dtype=dtype) / batch) % 1
    timesteps, noise_scale = _noise_levels(config, fractions, model.num_timesteps)
    quality = jnp.zeros(batch, dtype)
    if model.variable_rate:
        quality = (jax.random.uniform(quality_key, dtype=dtype) + jnp.arange(batch, dtype=dtype) / batch) % 1
    return StepRandomness(timesteps, *noises, corner, noise_scale, quality)


def _noise_levels(
    config: ml_collections.ConfigDict, fractions: Float[Array, " b"], num_timesteps: int
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """(timesteps, factors on the noise) of a batch, given positions in the schedule in [0, 1).

    The first images of the batch are at the noisiest level; of these, the first get no noise.
    """
    batch = len(fractions)
    last = num_timesteps - 1
    timesteps = jnp.minimum((fractions * num_timesteps).astype(jnp.int32), last)
    is_noisiest = jnp.arange(batch) < round(config.loss.max_noise_fraction * batch)
    is_silent = jnp.arange(batch) < round(config.loss.silent_fraction * batch)
    scale = jnp.where(is_silent, 0.0, jnp.where(is_noisiest, config.loss.max_noise_gamma, 1.0))
    return jnp.where(is_noisiest, last, timesteps), scale.astype(fractions.dtype)


def loss_and_metrics(
    config: ml_collections.ConfigDict,
    params: Params,
    image: Float[Array, "b h w 3"],
    randomness: StepRandomness,
    beta: float | Float[Array, ""],
    perceptual: Mapping[str, Array] | None = None,
    *,
    hyper_weight: float | Float[Array, ""] = 1.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss and its terms on a batch of images, or on one device's share of it.

    The rate is that of the whole crop. The U-Net, which costs most, runs on a region of the image and its context maps.

    Args:
      config: the run's settings.
      params: the weights by name.
      image: square crops in [−1, 1], with sides that are multiples of 64.
      randomness: the random numbers of these images.
      beta: β_rate. A variable-rate model derives each image's β from its quality instead.
      perceptual: LPIPS-VGG's weights; without them, ρ is 0.
      hyper_weight: factor on z's bits in the loss; it does not change the metrics.

    Returns:
      The loss, and its terms by name: `loss`, `bpp` and `hyper_bpp` (z's part of it) in bits per pixel,
      `diffusion_loss`, `prior_loss`, and with ρ > 0 `lpips`; each averaged over the images.
    """
    model = merge(model_config(config), params, **unet_options(config))
    quality = randomness.quality if model.config.transform else None
    compressed = model.compress(image, (randomness.latent_noise, randomness.hyper_noise), quality)
    pixels = image.shape[1] * image.shape[2]
    beta, importance = _rate_weights(config, model.config, randomness.quality, beta)
    bpp, hyper_bpp = compressed.rate_bits / pixels, compressed.hyper_bits / pixels
    weighted_bpp = bpp + (hyper_weight - 1) * hyper_bpp
    diffusion, target, estimate = _denoise(config, model, image, compressed.context, randomness, importance)
    prior, rho = model.compressor.prior.median_loss(), config.loss.rho if perceptual else 0.0
    loss = jnp.mean(importance * beta * weighted_bpp) + (1 - rho) * diffusion + prior
    metrics = {"bpp": jnp.mean(bpp), "hyper_bpp": jnp.mean(hyper_bpp), "diffusion_loss": diffusion, "prior_loss": prior}
    if rho:
        count = config.loss.lpips_images or len(target)
        distance = lpips(perceptual, target[:count], estimate[:count])
        loss += rho * jnp.mean(importance[:count] * distance)
        metrics["lpips"] = jnp.mean(distance)
    return loss, metrics | {"loss": loss}


def _rate_weights(
    config: ml_collections.ConfigDict, model: ModelConfig, quality: Float[Array, " b"], beta: float | Float[Array, ""]
) -> tuple[float | Float[Array, "..."], Float[Array, " b"]]:
    """(β_rate, weight in the loss) of each image; in a single-rate model, `beta` and ones."""
    if not model.variable_rate:
        return beta, jnp.ones_like(quality)
    ratio = model.beta_min / model.beta_max
    return model.beta_max * ratio**quality, ratio ** (config.loss.rate_balance * (0.5 - quality))


def _denoise(
    config: ml_collections.ConfigDict,
    model: CDC,
    image: Float[Array, "b h w 3"],
    context: Context,
    randomness: StepRandomness,
    importance: Float[Array, " b"],
) -> tuple[Float[Array, ""], Float[Array, "b s s 3"], Float[Array, "b s s 3"]]:
    """(diffusion loss, denoised region x₀ of the image, the U-Net's estimate x̂₀)."""
    size = randomness.noise.shape[1]
    target = _cut(image, randomness.corner, size)
    context = _cut_context(context, model.config.fold, randomness.corner, size)

    schedule = schedule_for(model.config)
    alpha_bar = jnp.asarray(schedule.alpha_bar)[randomness.timesteps]
    level = NoiseLevel.of(alpha_bar).per_image()
    noisy = add_noise(target, randomness.noise * randomness.noise_scale[:, None, None, None], level)
    time = (randomness.timesteps / np.float32(schedule.num_timesteps)).astype(jnp.float32)
    unet = model.unet.prepare(context)
    embedded = model.unet.embed(time, randomness.quality if model.config.variable_rate else None)
    output = unet(noisy, embedded, rematerialize=config.train.rematerialize)

    prediction, floor = model.config.prediction, config.loss.weight_floor
    loss = diffusion_loss(
        prediction, output, target, randomness.noise, alpha_bar, weight_floor=floor, importance=importance
    )
    estimate = one_step_image(prediction, output, noisy, level)
    return loss, target, jnp.clip(estimate, -1, 1) if prediction == "epsilon" else estimate


def perceptual_weights(config: ml_collections.ConfigDict) -> Mapping[str, Array]:
    """LPIPS-VGG's weights by name; {} if `loss.rho` is 0. Raises the errors of `load_lpips`."""
    return load_lpips("vgg", config.loss.lpips_weights or None) if config.loss.rho else {}


def unet_options(config: ml_collections.ConfigDict) -> dict:
    """The U-Net's dtype and matrix precision in training, as keyword arguments of `merge`."""
    precision = None if config.train.unet_precision == "default" else config.train.unet_precision
    dtype = None if config.train.compute_type == "float32" else config.train.compute_type
    return {"unet_dtype": dtype, "unet_precision": precision}


def beta_at(config: ml_collections.ConfigDict, step: Int[Array, ""]) -> Float[Array, ""]:
    """β_rate at a step: it rises geometrically from `loss.beta_start` to `loss.beta` over `loss.beta_ramp_steps`."""
    options = config.loss
    if not options.beta_ramp_steps:
        return jnp.float32(options.beta)
    progress = jnp.minimum(step / options.beta_ramp_steps, 1.0).astype(jnp.float32)
    return options.beta_start * (options.beta / options.beta_start) ** progress


def hyper_weight_at(config: ml_collections.ConfigDict, step: Int[Array, ""]) -> Float[Array, ""]:
    """The weight of z's bits at a step: it rises linearly from 0.1 to 1 over `loss.hyper_ramp_steps`."""
    if not config.loss.hyper_ramp_steps:
        return jnp.float32(1)
    progress = jnp.minimum(step / config.loss.hyper_ramp_steps, 1.0).astype(jnp.float32)
    return 0.1 + 0.9 * progress


def _cut_context(context: Context, fold: int, corner: Int[Array, " 2"], size: int) -> Context:
    strides = [fold << level for level in range(len(context.maps))]
    maps = tuple(_cut(m, corner // stride, size // stride) for m, stride in zip(context.maps, strides, strict=True))
    return Context(maps, None if context.preview is None else _cut(context.preview, corner, size))


def _cut(x: Float[Array, "b h w c"], corner: Int[Array, " 2"], size: int) -> Float[Array, "b s s c"]:
    if x.shape[1:3] == (size, size):
        return x
    return jax.lax.dynamic_slice(x, (0, corner[0], corner[1], 0), (x.shape[0], size, size, x.shape[3]))
