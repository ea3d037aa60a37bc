"""Estimates the memory of decoding, and finds the largest tile within a limit."""

from __future__ import annotations

import math

from cdc_jax.codec.tiling import MIN_TILE, default_tile, tile_shape
from cdc_jax.errors import ConfigError
from cdc_jax.models.config import LATENT_STRIDE, STRIDE, ModelConfig
from cdc_jax.models.params import shapes

_PROCESS_BYTES = 700 << 20  # Python, JAX, the compiler
_WEIGHT_BYTES = 13  # per weight: as read, on the device, and prepared for the U-Net
_IMAGE_BYTES = 40  # per pixel: the noisy image and its prediction in float32, the result, its file
_LATENT_BYTES = 64  # per value of y: symbol, mean, scale index and their order
_MAP_BYTES = 36  # per value of one map at each level of the U-Net: its activations


def tile_within(max_bytes: int, height: int, width: int, config: ModelConfig, devices: int = 1) -> int:
    """The side in pixels of the largest tile with which decoding is estimated to stay within a memory limit.

    Args:
      max_bytes: limit on the memory of the whole process, as `decoding_bytes` estimates it.
      height, width: the image's padded size in pixels, multiples of 64.
      config: the model's settings.
      devices: the number of devices that share the process's memory; each decodes a tile.

    Returns:
      The side of the tile; the longer side of the image if it fits as a whole.

    Raises:
      ConfigError: not even the smallest tile fits.
    """
    if decoding_bytes(height, width, None, config) <= max_bytes:
        return max(height, width)
    for tile in range(max(height, width) - STRIDE, MIN_TILE - 1, -STRIDE):
        if decoding_bytes(height, width, tile, config, devices) <= max_bytes:
            return max(tile_shape(height, width, tile))
    needed = decoding_bytes(height, width, MIN_TILE, config, devices)
    needed_mib = math.ceil(needed / 2**20)
    raise ConfigError(f"An image of {width}x{height} pixels needs at least {needed_mib} MiB with this model.")


def special_tile_within(max_bytes: int, height: int, width: int, config: ModelConfig, devices: int = 1) -> int | None:
    """`tile_within`, but None where that gives the tiles which the size has by itself."""
    tile = tile_within(max_bytes, height, width, config, devices)
    default = default_tile(height, width)
    return None if tile_shape(height, width, tile) == tile_shape(height, width, default) else tile


def decoding_bytes(height: int, width: int, tile: int | None, config: ModelConfig, devices: int = 1) -> int:
    """Estimates the peak memory of a process that decodes an image, in bytes.

    The coefficients were measured on a CPU and rounded up. An image without tiles is decoded on one device.

    Args:
      height, width, config, devices: as `tile_within`.
      tile: largest side of a tile in pixels; None without tiles.
    """
    pixels = height * width
    program_pixels = (1 if tile is None else devices) * math.prod(tile_shape(height, width, tile))
    return math.ceil(
        _PROCESS_BYTES
        + _WEIGHT_BYTES * sum(math.prod(leaf.shape) for leaf in shapes(config).values())
        + (_IMAGE_BYTES + _LATENT_BYTES * config.latent_channels / LATENT_STRIDE**2) * pixels
        + _MAP_BYTES * _map_values(config) * program_pixels
    )


def _map_values(config: ModelConfig) -> float:
    """Values per pixel of the image in the folded image and in one map at each level of the U-Net."""
    sides = (config.fold * 2**level for level in range(len(config.unet_channels)))
    levels = zip(config.unet_channels, sides, strict=True)
    return config.folded_channels / config.fold**2 + sum(channels / side**2 for channels, side in levels)
