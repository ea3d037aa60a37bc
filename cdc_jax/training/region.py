"""The region of the crops that the U-Net is trained on.

The rate covers whole crops. The U-Net is the most expensive part, so it can be trained on a part of them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int

from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.training.randomness import StepRandomness


class Region(NamedTuple):
    """A region of each image of a batch, and what the U-Net's loss needs with it.

    Attributes:
      image: x₀ in [−1, 1].
      context: the context maps of the region.
      randomness: the random numbers of these images.
      importance: each image's weight in the loss.
    """

    image: Float[Array, "b s s 3"]
    context: Context
    randomness: StepRandomness
    importance: Float[Array, " b"]


def cut_region(
    model: ModelConfig,
    image: Float[Array, "b h w 3"],
    context: Context,
    randomness: StepRandomness,
    importance: Float[Array, " b"],
) -> Region:
    """The region at `randomness.corner`, of the size of `randomness.noise`, of images and their context maps."""
    corner, size = randomness.corner, randomness.noise.shape[1]
    cut_context = _cut_context(context, model.fold, corner, size)
    return Region(_cut(image, corner, size), cut_context, randomness, importance)


def _cut_context(context: Context, fold: int, corner: Int[Array, " 2"], size: int) -> Context:
    strides = [fold << level for level in range(len(context.maps))]
    maps = tuple(_cut(m, corner // stride, size // stride) for m, stride in zip(context.maps, strides, strict=True))
    return Context(maps, None if context.preview is None else _cut(context.preview, corner, size))


def _cut(x: Float[Array, "b h w c"], corner: Int[Array, " 2"], size: int) -> Float[Array, "b s s c"]:
    if x.shape[1:3] == (size, size):
        return x
    return jax.lax.dynamic_slice(x, (0, corner[0], corner[1], 0), (x.shape[0], size, size, x.shape[3]))
