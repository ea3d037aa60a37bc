"""The random numbers of a training step.

The numbers of step k depend only on (seed, k) and the image's index in the global batch, not on how the batch is split
over devices and processes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Int

from cdc_jax.models.config import LATENT_STRIDE, STRIDE
from cdc_jax.training.config import model_config


class StepRandomness(NamedTuple):
    """The random numbers of one step. All but `corner` have one entry per image, along the first axis.

    Attributes:
      timesteps: n, uniform on {0, …, T−1}. With `loss.spread_timesteps` they are spread evenly over the batch (the
        low-discrepancy sampler of Kingma et al. 2021, appendix I.1), which lowers the loss's variance. For the first
        `loss.max_noise_fraction` of the batch, n = T − 1: the noisy image carries almost no information there, so the
        U-Net has to learn to use the context maps.
      noise: ε ~ N(0, 1) for the denoised region.
      rounding_noise: (u, u') ~ U(−½, ½) for y and z, see `CDC.compress`.
      corner: (top, left) of the denoised region in pixels, multiples of 16; the same for the whole batch.
      noise_scale: factor on ε: `loss.max_noise_gamma` for the first `loss.max_noise_fraction` of the batch, but 0 for
        the first `loss.silent_fraction`, and 1 for the rest. Decoding likewise starts from γ·ε.
      quality: in [0, 1), spread evenly over the batch; 0 in a single-rate model.
    """

    timesteps: Int[Array, " b"]
    noise: Float[Array, "b s s 3"]
    rounding_noise: tuple[Float[Array, "b h/16 w/16 c"], Float[Array, "b h/64 w/64 _"]]
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

    fractions, noise, *rounding_noise = jax.vmap(draw)(jnp.arange(batch))
    if config.loss.spread_timesteps:
        first = draw(0)[0]  # recomputed on every device: fractions[0] would need communication
        fractions = (first + jnp.arange(batch, dtype=dtype) / batch) % 1
    timesteps, noise_scale = _noise_levels(config, fractions, model.num_timesteps)
    quality = jnp.zeros(batch, dtype)
    if model.variable_rate:
        quality = (jax.random.uniform(quality_key, dtype=dtype) + jnp.arange(batch, dtype=dtype) / batch) % 1
    return StepRandomness(timesteps, noise, tuple(rounding_noise), corner, noise_scale, quality)


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
