"""The decoder's networks: from ŷ to pixels, with one compiled program for each model, number of steps and shape.

`synthesize` decodes a batch of whole images. `tiled_decoding` decodes images of any size with `prepare`, which computes
what the steps of a batch of tiles have in common, and `predict`, one U-Net call.
"""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from cdc_jax.diffusion.sampler import START, ddim_sample, image_noise, sampling_grid
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.io.pixels import to_uint8
from cdc_jax.models.config import LATENT_STRIDE, ModelConfig
from cdc_jax.models.params import Params, merge
from cdc_jax.models.valid_region import valid_region

COMPUTE_TYPES = {"float32": None, "bfloat16": "bfloat16"}  # name → dtype of the U-Net's products; None: the weights'


class Synthesized(NamedTuple):
    """The decoder's result for a batch.

    Attributes:
      images: 8-bit pixels.
      finite: for each image, whether all its values were finite before they became 8-bit pixels.
    """

    images: UInt8[Array, "b h w 3"]
    finite: Bool[Array, " b"]


def sample(
    config: ModelConfig,
    steps: int,
    stochastic: bool,
    params: Params,
    y_hat: Float[Array, "b h/16 w/16 c"],
    seed: UInt32[Array, ""],
    gamma: Float[Array, ""],
    eta: Float[Array, ""],
    quality: Float[Array, " b"] | None = None,
    cells: Int[Array, "b 2"] | None = None,
    *,
    compute_type: str = "float32",
) -> Float[Array, "b h w 3"]:
    """Decodes ŷ: computes the context maps, then runs S denoising steps from γ·noise.

    Args:
      config: the model's settings.
      steps: the number of steps S.
      stochastic: whether eta is above 0.
      params: the model's weights by dotted name.
      y_hat: latents; h and w are multiples of 64.
      seed, gamma, eta: scalars, as in `Codec.decompress`. All images of a batch get the same noise.
      quality: one value from 0 to 1 per image; None in a single-rate model.
      cells: height and width of each image, in cells of y. The image is at the top left of its ŷ; what is outside does
        not affect it. None: all of ŷ.
      compute_type: a key of COMPUTE_TYPES.

    Returns:
      x̂₀ of the last step, nominally in [−1, 1].
    """
    canvas = y_hat.shape[1:3]
    with contextlib.nullcontext() if cells is None else valid_region(cells[:, 0], cells[:, 1], canvas):
        return _sample(config, steps, stochastic, params, y_hat, seed, gamma, eta, quality, compute_type)


def _sample(config, steps, stochastic, params, y_hat, seed, gamma, eta, quality, compute_type):
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
    """`sample` as 8-bit pixels, with the same arguments. Compiled once per (model, steps, shape, compute type)."""
    images = sample(config, steps, stochastic, *arguments, compute_type=compute_type)
    return Synthesized(to_uint8(images), jnp.isfinite(images).all(axis=(1, 2, 3)))


@functools.partial(jax.jit, static_argnums=0)
def context_is_finite(
    config: ModelConfig,
    params: Params,
    y_hat: Float[Array, "b h/16 w/16 c"],
    quality: Float[Array, " b"] | None = None,
) -> Bool[Array, ""]:
    """Whether all values of the context maps are finite. The arguments are as in `sample`."""
    maps = merge(config, params).compressor.context(y_hat, quality).maps
    return jnp.stack([jnp.isfinite(each).all() for each in maps]).all()


@functools.partial(jax.jit, static_argnums=0, static_argnames="compute_type")
def prepare(
    config: ModelConfig,
    params: Params,
    y_hat: Float[Array, "b h/16 w/16 c"],
    quality: Float[Array, " b"] | None = None,
    compute_type: str = "float32",
) -> list[Float[Array, "b _ _ _"]]:
    """What all steps of a batch of tiles have in common, apart from the weights: maps for `predict`.

    Args:
      config, params, y_hat, quality, compute_type: as `sample`, for the tiles.
    """
    from cdc_jax.models.precomputed import maps_of  # imports Flax, which a kept program does not need

    return maps_of(_prepared(config, params, y_hat, quality, compute_type)[1])


@functools.partial(jax.jit, static_argnums=0, static_argnames="compute_type")
def predict(
    config: ModelConfig,
    params: Params,
    maps: list[Float[Array, "b _ _ _"]],
    x: Float[Array, "b h w 3"],
    time: Float[Array, ""],
    quality: Float[Array, " b"] | None = None,
    compute_type: str = "float32",
) -> Float[Array, "b h w 3"]:
    """The U-Net's prediction for one step of a batch of tiles.

    Args:
      config, params, quality, compute_type: as `sample`, for the tiles.
      maps: from `prepare`.
      x: the noisy tiles.
      time: the step's time input, a scalar.
    """
    from cdc_jax.models.precomputed import with_maps

    batch, height, width, _ = x.shape
    cells = batch, height // LATENT_STRIDE, width // LATENT_STRIDE, config.latent_channels
    # Only the prepared weights are used; the compiler removes the maps that would be computed from these zeros.
    model, unet = _prepared(config, params, jnp.zeros(cells, jnp.float32), quality, compute_type)
    return with_maps(unet, maps)(x, model.unet.embed(time[None], quality))


def _prepared(config, params, y_hat, quality, compute_type):
    """The model, and its U-Net prepared for ŷ."""
    model = merge(config, params, unet_dtype=COMPUTE_TYPES[compute_type])
    return model, model.unet.prepare(model.compressor.context(y_hat, quality))
