"""Estimates the memory of encoding, reading and decoding, and finds the largest tile within a limit.

The coefficients were measured on a CPU and rounded up.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence

import jax

from cdc_jax.codec import encoding
from cdc_jax.codec.tiling import MIN_TILE, default_tile, tile_shape
from cdc_jax.errors import ConfigError
from cdc_jax.models.config import LATENT_STRIDE, STRIDE, ModelConfig
from cdc_jax.models.params import shapes
from cdc_jax.runtime.free_memory import enough_memory, free_address_bytes, free_bytes, used_bytes

_PROCESS_BYTES = 700 << 20  # Python, JAX, the compiler
_ENCODER_PROCESS_BYTES = 400 << 20  # the same without the U-Net's programs
_WEIGHT_BYTES = 13  # per weight: as read, on the device, and prepared for the U-Net
_IMAGE_BYTES = 40  # per pixel: the noisy image and its prediction in float32, the result, its file
_SOURCE_BYTES = 8  # per pixel: the image as read, and padded
_LATENT_BYTES = 64  # per value of y: symbol, mean, scale index and their order
_MAP_BYTES = 36  # per value of one map at each level of the U-Net: its activations
_ENCODER_MAP_BYTES = 20  # the same for the encoder
_COMPILER_BYTES = 96 << 20  # what is free again once the programs are compiled
_FLOAT_BYTES = 4
LEAST_TO_READ, LEAST_TO_RUN = 64 << 20, 320 << 20  # address space of a step: with less, libraries end the process
_TRUTH = 0.5  # lower bound of actual / estimated memory: nothing that was measured took less


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
    check_limit(max_bytes, height, width, decoding_bytes(height, width, MIN_TILE, config, devices))
    return MIN_TILE


def special_tile_within(max_bytes: int, height: int, width: int, config: ModelConfig, devices: int = 1) -> int | None:
    """`tile_within`, but None if that yields the default tiles for the size."""
    tile = tile_within(max_bytes, height, width, config, devices)
    default = default_tile(height, width)
    return None if tile_shape(height, width, tile) == tile_shape(height, width, default) else tile


def check_limit(max_bytes: int, height: int, width: int, needed_bytes: int) -> None:
    """Raises ConfigError, which states how much is needed, if an image needs more than a limit."""
    if needed_bytes > max_bytes:
        needed_mib = math.ceil(needed_bytes / 2**20)
        raise ConfigError(f"An image of {width}x{height} pixels needs at least {needed_mib} MiB with this model.")


def decoding_bytes(height: int, width: int, tile: int | None, config: ModelConfig, devices: int = 1) -> int:
    """Estimates the peak memory of a process that decodes an image, in bytes.

    Args:
      height, width, config, devices: as `tile_within`. An image without tiles is decoded on one device.
      tile: largest side of a tile in pixels; None without tiles.
    """
    pixels = height * width
    program_pixels = (1 if tile is None else devices) * math.prod(tile_shape(height, width, tile))
    map_bytes = _MAP_BYTES * _map_values(config, config.unet_channels) * program_pixels
    return _peak_bytes(_PROCESS_BYTES, config, pixels, _IMAGE_BYTES, map_bytes)


def kept_bytes(height: int, width: int, tile: int | None, config: ModelConfig) -> int:
    """The memory that a tile takes between steps if what its steps have in common is kept, in bytes.

    Args:
      height, width, tile, config: as `decoding_bytes`.
    """
    levels = len(config.context_channels)
    contexts = list(config.context_channels)
    contexts[0] += config.folded_channels if config.transform else 0
    inputs = (config.folded_channels, *config.unet_channels)[:levels]
    values = 3.0 if config.transform and config.prediction == "x" else 0.0  # per pixel: the preview
    for level, (known, given, out) in enumerate(zip(contexts, inputs, config.unet_channels, strict=False)):
        # The contributions to the first convolution and to the skip; a skip without a convolution takes the map itself.
        values += (out + (known if known + given == out else out)) / (config.fold * 2**level) ** 2
    return math.ceil(_FLOAT_BYTES * values * math.prod(tile_shape(height, width, tile)))


def tiles_to_keep(
    height: int,
    width: int,
    tile: int | None,
    config: ModelConfig,
    devices: Sequence[jax.Device],
    max_bytes: int | None = None,
) -> int:
    """For how many tiles on each device there is memory to keep `kept_bytes`.

    Without a limit, tiles take what the compiler gave back to the system, but at most half of the free memory. Devices
    with their own memory give half of what is free.

    Args:
      height, width, tile, config: as `decoding_bytes`.
      devices: the devices on which it is kept.
      max_bytes: limit on the memory of the whole process; None without one.
    """
    without = decoding_bytes(height, width, tile, config, len(devices))
    statistics = [device.memory_stats() for device in devices]
    if max_bytes is not None:
        room = max_bytes - without
    elif all(statistics):
        room = sum(each.get("bytes_limit", 0) - each.get("bytes_in_use", 0) for each in statistics) / 2
    else:
        room = min(_COMPILER_BYTES, (free_bytes() - max(0, without - used_bytes())) / 2)
    return max(0, int(room // (len(devices) * kept_bytes(height, width, tile, config))))


def encoding_bytes(height: int, width: int, config: ModelConfig) -> int:
    """Estimates the peak memory of a process that encodes an image of this size, in bytes."""
    pixels = height * width
    program_pixels = pixels if pixels <= encoding.WHOLE_PIXELS else encoding.TILE**2
    map_bytes = _ENCODER_MAP_BYTES * _map_values(config, config.encoder_channels) * program_pixels
    return _peak_bytes(_ENCODER_PROCESS_BYTES, config, pixels, _SOURCE_BYTES, map_bytes)


def reading_bytes(height: int, width: int, config: ModelConfig) -> int:
    """Estimates the peak memory of a process that reads the symbols of a file of this size, in bytes."""
    return _peak_bytes(_ENCODER_PROCESS_BYTES, config, height * width, 0, 0)


def _peak_bytes(process_bytes: int, config: ModelConfig, pixels: int, pixel_bytes: int, map_bytes: float) -> int:
    """The sum of process, model, the image's pixels and latents, and a network's maps, in bytes."""
    return math.ceil(process_bytes + model_bytes(config) + (pixel_bytes + _latent_bytes(config)) * pixels + map_bytes)


@functools.lru_cache(maxsize=16)
def model_bytes(config: ModelConfig) -> int:
    """Estimates the memory that a model's weights take in use, in bytes."""
    return _WEIGHT_BYTES * sum(math.prod(leaf.shape) for leaf in shapes(config).values())


def room_for(
    what: str, estimated_bytes: int, least_more: int = LEAST_TO_RUN
) -> contextlib.AbstractContextManager[None]:
    """`enough_memory` for a step, given the estimated peak memory of the process.

    Args:
      what: the step, such as "Decoding 100x200 pixels".
      estimated_bytes: the estimate.
      least_more: the least additional address space that the step takes, however small the image.
    """
    least = _TRUTH * estimated_bytes
    least_more = max(least - used_bytes(), least_more) if free_address_bytes() < math.inf else 0
    least_whole = least if jax.default_backend() == "cpu" else 0  # other devices have their own memory
    return enough_memory(what, estimated_bytes, least_more=least_more, least_whole=least_whole)


def _latent_bytes(config: ModelConfig) -> float:
    """Bytes per pixel of the image for y, while it is coded."""
    return _LATENT_BYTES * config.latent_channels / LATENT_STRIDE**2


def _map_values(config: ModelConfig, level_channels: tuple[int, ...]) -> float:
    """Values per pixel of the image in the folded image and in one map at each level of a network."""
    sides = (config.fold * 2**level for level in range(len(level_channels)))
    levels = zip(level_channels, sides, strict=True)
    return config.folded_channels / config.fold**2 + sum(channels / side**2 for channels, side in levels)
