"""The decoder's device side: ŷ → image, as one compiled program per (model, steps, shape).

`synthesize` decodes a batch of whole images; `predict` is one U-Net call on a batch of tiles, from which
`tiled_decoding` makes images of any size.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from cdc_jax.diffusion.sampler import START, ddim_sample, image_noise, sampling_grid
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.io.pixels import to_uint8
from cdc_jax.models.config import LATENT_STRIDE, ModelConfig
from cdc_jax.models.params import Params, merge


class Synthesized(NamedTuple):
    """8-bit pixels [b, h, w, 3], and for each image whether it was made of finite numbers."""

    images: UInt8[Array, "b h w 3"]
    finite: Bool[Array, " b"]


COMPUTE_TYPES = {"float32": None, "bfloat16": "bfloat16"}  # of the U-Net's products


def sample(
    config: ModelConfig,
    steps: int,
    stochastic: bool,
    params: Params,
    y_hat: Float[Array, "b h/16 w/16 c"],
    seed: Array,
    gamma: Array,
    eta: Array,
    quality: Float[Array, " b"] | None = None,
    *,
    compute_type: str = "float32",
) -> Float[Array, "b h w 3"]:
    """Decodes ŷ: context maps, then S denoising steps from γ·noise, the same noise for all of a batch.

    Args:
      config: the model.
      steps: S.
      stochastic: whether eta is above 0.
      params: weights.
      y_hat: latents, h and w multiples of 64.
      seed, gamma, eta: as `Codec.decompress`, scalars.
      quality: from 0 to 1, one per image; None in a model of one rate.
      compute_type: a key of COMPUTE_TYPES.

    Returns:
      x̂₀ of the last step, nominally in [−1, 1].
    """
    model = merge(config, params, unet_dtype=COMPUTE_TYPES[compute_type])
    context = model.compressor.context(y_hat, quality)
    batch, height, width = y_hat.shape[0], *(LATENT_STRIDE * cells for cells in y_hat.shape[1:3])

    def noise(stream):
        return jnp.broadcast_to(image_noise(seed, stream, height, width), (batch, height, width, 3))

    inputs = sampling_grid(schedule_for(config), config.prediction, steps)
    unet = model.unet.prepare(context)
    time = jnp.asarray(inputs.time)[:, None]
    features = model.unet.embed(time, None if quality is None else quality[None])  # [S, b or 1, …]
    return ddim_sample(
        unet,
        config.prediction,
        gamma * noise(START),
        inputs,
        embedded=features,
        eta=eta,
        step_noise=(lambda k: noise(1 + k)) if stochastic else None,
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames="compute_type")
def synthesize(
    config: ModelConfig, steps: int, stochastic: bool, *arguments, compute_type: str = "float32"
) -> Synthesized:
    """`sample` with the same arguments, compiled once per (model, S, shape, type), as 8-bit pixels."""
    images = sample(config, steps, stochastic, *arguments, compute_type=compute_type)
    return Synthesized(to_uint8(images), jnp.isfinite(images).all(axis=(1, 2, 3)))


@functools.partial(jax.jit, static_argnums=0)
def context_is_finite(config: ModelConfig, params: Params, y_hat: Float[Array, "b h/16 w/16 c"], quality=None) -> Array:
    """Whether the U-Net is given finite context maps, of ŷ and quality as `sample` takes them."""
    maps = merge(config, params).compressor.context(y_hat, quality).maps
    return jnp.stack([jnp.isfinite(each).all() for each in maps]).all()


@functools.partial(jax.jit, static_argnums=0, static_argnames="compute_type")
def predict(
    config: ModelConfig,
    params: Params,
    y_hat: Float[Array, "b h/16 w/16 c"],
    x: Float[Array, "b h w 3"],
    time: Array,
    quality: Float[Array, " b"] | None = None,
    compute_type: str = "float32",
) -> Float[Array, "b h w 3"]:
    """The network's prediction at one time input; the context maps are recomputed at each step to save memory."""
    model = merge(config, params, unet_dtype=COMPUTE_TYPES[compute_type])
    unet = model.unet.prepare(model.compressor.context(y_hat, quality))
    return unet(x, model.unet.embed(time[None], quality))
