"""The training loss. Pure functions, to be jitted.

    loss = β_rate · bpp + (1 − ρ) · diffusion loss + ρ · LPIPS(x₀, x̂₀) + prior's median loss

In distillation, the diffusion loss is that of `training.imitation`, and only the U-Net is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int

from cdc_jax.diffusion.process import NoiseLevel, add_noise, diffusion_loss, one_step_image
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.metrics.lpips import load_lpips, lpips
from cdc_jax.models.cdc import CDC
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import Params, merge
from cdc_jax.training.config import model_config
from cdc_jax.training.imitation import Teacher, imitation_loss
from cdc_jax.training.randomness import StepRandomness
from cdc_jax.training.region import Region, cut_region


def loss_and_metrics(
    config: ml_collections.ConfigDict,
    params: Params,
    image: Float[Array, "b h w 3"],
    randomness: StepRandomness,
    beta: float | Float[Array, ""],
    perceptual: Mapping[str, Array] | None = None,
    *,
    hyper_weight: float | Float[Array, ""] = 1.0,
    teacher: Teacher | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss and its terms on a batch of images, or on one device's share of it.

    The rate covers the whole crop. The U-Net, which is the most expensive part, runs on a region of the image and its
    context maps.

    Args:
      config: the run's settings.
      params: the weights by name.
      image: square crops in [−1, 1], whose sides are multiples of 64.
      randomness: the random numbers of these images.
      beta: β_rate. A variable-rate model derives each image's β from its quality instead.
      perceptual: LPIPS-VGG's weights; if empty, ρ is 0.
      hyper_weight: factor on z's bits in the loss; it does not affect the metrics.
      teacher: the teacher, in distillation. Rate and prior loss are then constants: their weights are frozen.

    Returns:
      The loss, and its terms by name: `loss`, `bpp` and `hyper_bpp` (z's part of it) in bits per pixel,
      `diffusion_loss`, `prior_loss`, and with ρ > 0 `lpips`; each averaged over the images.
    """
    options = unet_options(config)
    model = merge(model_config(config), params, **options)
    quality = randomness.quality if model.config.transform else None
    compressed = model.compress(image, randomness.rounding_noise, quality)
    pixels = image.shape[1] * image.shape[2]
    beta, importance = _rate_weights(config, model.config, randomness.quality, beta)
    bpp, hyper_bpp = compressed.rate_bits / pixels, compressed.hyper_bits / pixels
    weighted_bpp = bpp + (hyper_weight - 1) * hyper_bpp
    region = cut_region(model.config, image, compressed.context, randomness, importance)
    if teacher is None:
        diffusion, estimate = _denoise(config, model, region)
    else:
        unet = merge(model.config, {**params, **teacher.unet}, **options).unet
        diffusion, estimate = imitation_loss(config, model, unet, teacher.steps, region)
    if model.config.prediction == "epsilon":
        estimate = jnp.clip(estimate, -1, 1)
    prior, rho = model.compressor.prior.median_loss(), config.loss.rho if perceptual else 0.0
    loss = jnp.mean(importance * beta * weighted_bpp) + (1 - rho) * diffusion + prior
    metrics = {"bpp": jnp.mean(bpp), "hyper_bpp": jnp.mean(hyper_bpp), "diffusion_loss": diffusion, "prior_loss": prior}
    if rho:
        count = config.loss.lpips_images or len(estimate)
        distance = lpips(perceptual, region.image[:count], estimate[:count])
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
    config: ml_collections.ConfigDict, model: CDC, region: Region
) -> tuple[Float[Array, ""], Float[Array, "b s s 3"]]:
    """(diffusion loss, the U-Net's estimate x̂₀ of the region)."""
    target, context, randomness, importance = region
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
    return loss, one_step_image(prediction, output, noisy, level)


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
