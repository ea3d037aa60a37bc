"""From a file's symbols to its image, on this process' devices: how to decode, and who does it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from cdc_jax.codec import tiling
from cdc_jax.codec.decoding import synthesize
from cdc_jax.codec.device_pool import LocalDevices
from cdc_jax.codec.tiled_decoding import synthesize_in_tiles
from cdc_jax.entropy.coder import DecodedSymbols
from cdc_jax.errors import ConfigError
from cdc_jax.io.images import Image
from cdc_jax.models.config import LATENT_STRIDE, ModelConfig
from cdc_jax.models.params import Params
from cdc_jax.runtime.sharding import split_batch


class DecodeSettings(NamedTuple):
    """Checked and complete; the attributes are those of `Codec.decompress`."""

    steps: int
    seed: int
    gamma: float
    eta: float


def decode_settings(
    config: ModelConfig, steps: int | None, seed: int, gamma: float | None, eta: float
) -> DecodeSettings:
    """Fills in the model's defaults.

    Raises:
      ConfigError: steps, seed, gamma or eta is impossible.
    """
    steps = config.decode_steps if steps is None else steps
    gamma = config.decode_gamma if gamma is None else gamma
    if not 1 <= steps <= config.num_timesteps:
        raise ConfigError(f"steps is {steps}; it must be between 1 and {config.num_timesteps}")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}; it must be between 0 and {2**32 - 1}")
    if not (gamma >= 0 and math.isfinite(gamma)):
        raise ConfigError(f"gamma is {gamma}; it must be zero or a positive number")
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta is {eta}; it must be between 0 and 1")
    return DecodeSettings(steps, seed, gamma, eta)


class ImageDecoder:
    """Makes images of symbols. Safe to use from several threads.

    Args:
      config: the model's settings.
      devices: the devices, with its weights.
      compute_type: of the U-Net's products.
    """

    def __init__(self, config: ModelConfig, devices: LocalDevices, compute_type: str):
        self._config, self._devices, self._compute_type = config, devices, compute_type

    def decode(self, symbols: DecodedSymbols, settings: DecodeSettings, tile: int | None) -> Image:
        """One image of the padded size, whole where `tile` is None or no smaller than it."""
        height, width, _ = symbols.y.shape
        if tile is not None and tile < LATENT_STRIDE * max(height, width):
            return self._in_tiles(symbols, settings, tile)
        with self._devices.one() as params:
            return np.array(self._synthesize(params, y_hat(symbols)[None], settings)[0])

    def decode_batch(
        self, symbols: list[DecodedSymbols], settings: DecodeSettings, batch_size: int
    ) -> Iterator[Image]:
        """Pictures of one padded size; more than symbols where the batch had to be filled up."""
        height, width, _ = symbols[0].y.shape
        tile = tiling.default_tile(LATENT_STRIDE * height, LATENT_STRIDE * width)
        if tile is not None:
            for one in symbols:
                yield self._in_tiles(one, settings, tile)
            return
        latents = np.stack([y_hat(symbols[i % len(symbols)]) for i in range(batch_size)])
        with self._devices.all() as (params, mesh):
            if mesh.size > 1:
                latents = jax.device_put(latents, split_batch(mesh))
            pictures = np.array(self._synthesize(params, latents, settings))
        yield from pictures

    def _in_tiles(self, symbols: DecodedSymbols, settings: DecodeSettings, tile: int) -> Image:
        with self._devices.all() as (params, mesh):
            options = {**settings._asdict(), "tile": tile, "compute_type": self._compute_type}
            return synthesize_in_tiles(self._config, params, mesh, y_hat(symbols), **options)

    def _synthesize(self, params: Params, latents, settings: DecodeSettings) -> Array:
        steps, seed, gamma, eta = settings
        numbers = np.uint32(seed), np.float32(gamma), np.float32(eta)
        return synthesize(self._config, steps, eta > 0, params, latents, *numbers, compute_type=self._compute_type)


def y_hat(symbols: DecodedSymbols) -> Float[np.ndarray, "h w c"]:
    """The latents that symbols stand for."""
    return symbols.y.astype(np.float32) + symbols.mean
