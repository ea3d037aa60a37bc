"""How much memory decoding takes, estimated; and the largest tile for a limit."""

from __future__ import annotations

import math

from cdc_jax.codec.tiling import MIN_TILE, tile_shape
from cdc_jax.errors import ConfigError
from cdc_jax.models.config import STRIDE

_PROCESS_BYTES = 700 << 20  # Python, JAX, the compiler
_WEIGHT_BYTES = 160 << 10  # times the square of the model's width: read, on the device, and as the U-Net wants them
_IMAGE_BYTES = 40  # a pixel: the noisy image and its prediction in float32, the result, its file
_LATENT_BYTES = 1  # a pixel and channel of the model: symbols, means, scale indices and their order
_PROGRAM_BYTES = 64  # a pixel of a tile and channel of the model: what the U-Net keeps at once


def tile_within(max_bytes: int, height: int, width: int, model_width: int, devices: int = 1) -> int:
    """The largest tile for decoding an image of this padded size in this much memory; the whole image if it fits.

    Args:
      max_bytes: memory of the whole process, as `decoding_bytes` estimates it.
      height, width: pixels, multiples of 64.
      model_width: d.
      devices: that share the process's memory and work on a tile each.

    Raises:
      ConfigError: not even the smallest tile fits.
    """
    if decoding_bytes(height, width, None, model_width) <= max_bytes:
        return max(height, width)
    for tile in range(max(height, width) - STRIDE, MIN_TILE - 1, -STRIDE):
        if decoding_bytes(height, width, tile, model_width, devices) <= max_bytes:
            return max(tile_shape(height, width, tile))
    needed = decoding_bytes(height, width, MIN_TILE, model_width, devices)
    needed_mib = math.ceil(needed / 2**20)
    raise ConfigError(f"An image of {width}x{height} pixels needs at least {needed_mib} MiB with this model.")


def decoding_bytes(height: int, width: int, tile: int | None, model_width: int, devices: int = 1) -> int:
    """About the memory of a process that decodes an image of this size, on a CPU; measured, rounded up.

    An image without tiles is one device's work; otherwise each of the devices has a tile.
    """
    pixels = height * width
    program_pixels = (1 if tile is None else devices) * math.prod(tile_shape(height, width, tile))
    return (
        _PROCESS_BYTES
        + _WEIGHT_BYTES * model_width**2
        + (_IMAGE_BYTES + _LATENT_BYTES * model_width) * pixels
        + _PROGRAM_BYTES * model_width * program_pixels
    )
