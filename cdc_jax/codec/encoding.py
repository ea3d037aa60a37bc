"""The encoder's networks: from an image to the latents y and z. Large images are encoded in tiles.

A cell of y covers 16 pixels per side. In the paper's layout, its receptive field extends 47 pixels before them and 32
after them; in the compact layout, it extends less than 96 pixels on either side. Tiles overlap by at least twice as
much, and only cells that do not see a tile's inner edges are kept. z is computed from all of y. The tiles depend only
on the image's size, so that the result does not depend on the machine's memory.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from cdc_jax.codec.tiling import Axis
from cdc_jax.io.pixels import to_unit_range
from cdc_jax.models.config import LATENT_STRIDE, ModelConfig
from cdc_jax.models.params import Params, merge
from cdc_jax.runtime import programs

WHOLE_PIXELS = 1 << 20  # images of up to this many pixels are encoded whole
TILE = 1024
OVERLAP, COMPACT_OVERLAP = 128, 192


@functools.partial(jax.jit, static_argnums=0)
def encode_latents(
    config: ModelConfig, params: Params, images: UInt8[Array, "b h w 3"]
) -> tuple[Float[Array, "b h/16 w/16 c"], Float[Array, "b h/64 w/64 z"]]:
    """Latents (y, z) before quantization; h and w are multiples of 64."""
    return merge(config, params).compressor.encode(to_unit_range(images))


@functools.partial(jax.jit, static_argnums=0)
def rate_bits(
    config: ModelConfig, params: Params, images: UInt8[Array, "b h w 3"], quality: Float[np.ndarray, " b"] | None
) -> Float[Array, " b"]:
    """−log₂ p of the rounded latents under the float model, in bits per image.

    Args:
      config, params: the model's settings and weights.
      images: h and w are multiples of 64.
      quality: one value from 0 to 1 per image; None in a single-rate model.
    """
    return merge(config, params).compress(to_unit_range(images), quality=quality).rate_bits


@functools.partial(jax.jit, static_argnums=0)
def _encode_y(config: ModelConfig, params: Params, images: UInt8[Array, "b h w 3"]):
    return merge(config, params).compressor.encode_y(to_unit_range(images))


@functools.partial(jax.jit, static_argnums=0)
def _encode_z(config: ModelConfig, params: Params, y: Float[Array, "b h w c"]):
    return merge(config, params).compressor.encode_z(y)


def image_latents(
    config: ModelConfig, params: Params, image: UInt8[np.ndarray, "h w 3"], *, tile: int | None = None
) -> tuple[Float[np.ndarray, "h/16 w/16 c"], Float[np.ndarray, "h/64 w/64 z"]]:
    """Latents (y, z) of one image, before quantization.

    Args:
      config, params: the model's settings and weights; the computation runs on the weights' device.
      image: h and w are multiples of 64.
      tile: largest side of a tile in pixels, a multiple of 64 above the overlap. By default, images of up to 2²⁰ pixels
        are encoded whole, and larger ones in tiles of 1024.
    """
    height, width, _ = image.shape
    if tile is None:
        tile = TILE if height * width > WHOLE_PIXELS else max(height, width)
    if tile >= max(height, width):
        y, z = programs.call(encode_latents, (config,), (params, image[None]))
        return np.asarray(y)[0], np.asarray(z)[0]  # `y[0]` in JAX would be a program of its own
    overlap = COMPACT_OVERLAP if config.compact else OVERLAP
    rows, columns = Axis(height, tile, overlap), Axis(width, tile, overlap)
    y = np.empty((height // LATENT_STRIDE, width // LATENT_STRIDE, config.latent_channels), np.float32)
    for row, (top, bottom) in zip(rows.spans, rows.cores, strict=True):
        for column, (left, right) in zip(columns.spans, columns.cores, strict=True):
            part = image[None, slice(*row), slice(*column)]
            tile_y = np.asarray(programs.call(_encode_y, (config,), (params, part)))[0]
            y[top // LATENT_STRIDE : bottom // LATENT_STRIDE, left // LATENT_STRIDE : right // LATENT_STRIDE] = tile_y[
                (top - row[0]) // LATENT_STRIDE : (bottom - row[0]) // LATENT_STRIDE,
                (left - column[0]) // LATENT_STRIDE : (right - column[0]) // LATENT_STRIDE,
            ]
    return y, np.asarray(programs.call(_encode_z, (config,), (params, y[None])))[0]
