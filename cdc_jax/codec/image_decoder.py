"""Turns symbols into images on this process's devices, and checks the settings of decoding."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8

from cdc_jax.codec import tiling
from cdc_jax.codec.batching import Progress
from cdc_jax.codec.decoding import synthesize
from cdc_jax.codec.device_pool import LocalDevices
from cdc_jax.codec.memory import decoding_bytes, room_for, tiles_to_keep
from cdc_jax.codec.preview import preview
from cdc_jax.codec.tiled_decoding import estimates_in_tiles, synthesize_in_tiles
from cdc_jax.codec.unusable_weights import unusable_decoder
from cdc_jax.entropy.coder import DecodedSymbols
from cdc_jax.errors import ConfigError
from cdc_jax.io.cdc_file import MAX_LEVEL
from cdc_jax.io.images import Image
from cdc_jax.models.config import LATENT_STRIDE, ModelConfig
from cdc_jax.models.params import Params
from cdc_jax.runtime import programs
from cdc_jax.runtime.sharding import split_batch


class DecodeSettings(NamedTuple):
    """Valid settings, with defaults filled in. The attributes are arguments of `Codec.decompress`."""

    steps: int
    seed: int
    gamma: float
    eta: float


def decode_settings(
    config: ModelConfig, steps: int | None, seed: int, gamma: float | None, eta: float, tile: int | None = None
) -> DecodeSettings:
    """Checks settings, and replaces None with the model's defaults. The tile is only checked.

    Raises:
      ConfigError: steps, seed, gamma, eta or tile is invalid.
    """
    if tile is not None:
        tiling.check_tile(tile)
    steps = config.decode_steps if steps is None else _whole_number("steps", steps)
    seed = _whole_number("seed", seed)
    if steps == 0 and not config.transform:
        raise ConfigError("This model has no transform, and so no preview: steps must be at least 1.")
    gamma = config.decode_gamma if gamma is None else gamma
    if not 0 <= steps <= config.num_timesteps:
        least = 0 if config.transform else 1
        raise ConfigError(f"steps is {steps}; it must be between {least} and {config.num_timesteps}.")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}; it must be between 0 and {2**32 - 1}.")
    if not (gamma >= 0 and math.isfinite(gamma)):
        raise ConfigError(f"gamma is {gamma}; it must be zero or a positive number.")
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta is {eta}; it must be between 0 and 1.")
    return DecodeSettings(steps, seed, float(gamma), float(eta))


def _whole_number(name: str, value: int | float) -> int:
    """A setting as an int, so that `np.int64(1)` and `1.0` use the compiled program of `1`."""
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, float | np.floating) and float(value).is_integer():
            return int(value)
    raise ConfigError(f"{name} is {value!r}; it must be a whole number.")


class ImageDecoder:
    """Turns symbols into images. Safe to use from several threads.

    Args:
      config: the model's settings.
      devices: the devices, with the model's weights.
      compute_type: precision of the U-Net's products, "float32" or "bfloat16".
      synthesis: the transform's matrix Tᵀ, or None in a model without the transform.
    """

    def __init__(
        self,
        config: ModelConfig,
        devices: LocalDevices,
        compute_type: str,
        synthesis: Float[np.ndarray, "c 768"] | None = None,
    ):
        self._config, self._devices, self._compute_type = config, devices, compute_type
        self._synthesis = synthesis

    def decode(
        self,
        symbols: DecodedSymbols,
        settings: DecodeSettings,
        tile: int | None,
        progress: Progress | None = None,
        max_bytes: int | None = None,
    ) -> Image:
        """Decodes one image, at the padded size.

        Args:
          symbols: the file's symbols.
          settings: how to decode.
          tile: largest side of a tile in pixels; None for the default of the image's size. An image that is not larger
            is decoded whole.
          progress: called as `progress(done, total)` after each tile of each step, or once for a whole image.
          max_bytes: limit on the process's memory, as `memory.tiles_to_keep`.

        Raises:
          BundleError: the pixels are not finite.
          OutOfMemoryError: there is not enough memory.
        """
        tile = _tile_for(symbols, tile)
        if settings.steps and tile is not None:
            return self._in_tiles(symbols, settings, tile, progress, max_bytes)
        if settings.steps == 0:
            image = preview(symbols.y_hat, self._synthesis)
        else:
            with self._room(symbols, None), self._devices.one() as params:
                [image] = self._synthesize(params, [symbols], settings)
        if progress is not None:
            progress(1, 1)
        return image

    def decode_progressively(self, symbols: DecodedSymbols, settings: DecodeSettings) -> Iterator[Image]:
        """Yields the preview, if the model has one, and each step's estimate, at the padded size."""
        if self._config.transform:
            yield preview(symbols.y_hat, self._synthesis)
        if settings.steps:
            height, width, _ = symbols.y.shape
            tile = tiling.default_tile(LATENT_STRIDE * height, LATENT_STRIDE * width)
            whole = max(LATENT_STRIDE * max(height, width), tiling.MIN_TILE)
            with self._devices.all() as (params, mesh):
                options = self._tile_options(symbols, settings, tile or whole)
                yield from estimates_in_tiles(self._config, params, mesh, symbols.y_hat, **options)

    def decode_batch(
        self,
        symbols: list[DecodedSymbols],
        settings: DecodeSettings,
        tile: int | None,
        batch_size: int,
        canvas: tuple[int, int] | None = None,
    ) -> Iterator[Image]:
        """Decodes images of one padded size, or of a common canvas (`canvases`), whose height and width are in pixels.

        Yields one image per element of `symbols`, and then possibly padding. An image is at the top left of its canvas.
        """
        if settings.steps == 0:
            yield from (preview(one.y_hat, self._synthesis) for one in symbols)
            return
        tile = _tile_for(symbols[0], tile)
        if tile is not None:
            for one in symbols:
                yield self._in_tiles(one, settings, tile)
            return
        filled = [symbols[i % len(symbols)] for i in range(batch_size)]
        with self._room(symbols[0], None, canvas), self._devices.all() as (params, mesh):
            images = self._synthesize(params, filled, settings, mesh, canvas)
        yield from images

    def _in_tiles(
        self,
        symbols: DecodedSymbols,
        settings: DecodeSettings,
        tile: int,
        progress: Progress | None = None,
        max_bytes: int | None = None,
    ) -> Image:
        with self._room(symbols, tile), self._devices.all() as (params, mesh):
            options = {**self._tile_options(symbols, settings, tile, max_bytes), "progress": progress}
            return synthesize_in_tiles(self._config, params, mesh, symbols.y_hat, **options)

    def _room(
        self, symbols: DecodedSymbols, tile: int | None, canvas: tuple[int, int] | None = None
    ) -> AbstractContextManager[None]:
        height, width = canvas or (LATENT_STRIDE * cells for cells in symbols.y.shape[:2])
        needed_bytes = decoding_bytes(height, width, tile, self._config, len(self._devices))
        return room_for(f"Decoding {width}x{height} pixels", needed_bytes)

    def _tile_options(
        self, symbols: DecodedSymbols, settings: DecodeSettings, tile: int, max_bytes: int | None = None
    ) -> dict:
        quality = self._qualities([symbols])
        quality = None if quality is None else quality[0]
        height, width = (LATENT_STRIDE * cells for cells in symbols.y.shape[:2])
        devices = list(self._devices.mesh.devices.flat)
        keep = tiles_to_keep(height, width, tile, self._config, devices, max_bytes) if settings.steps > 1 else 0
        options = {"tile": tile, "compute_type": self._compute_type, "quality": quality, "keep": keep}
        return {**settings._asdict(), **options}

    def _synthesize(
        self,
        params: Params,
        symbols: list[DecodedSymbols],
        settings: DecodeSettings,
        mesh: Mesh | None = None,
        canvas: tuple[int, int] | None = None,
    ) -> UInt8[np.ndarray, "b h w 3"]:
        steps, seed, gamma, eta = settings
        numbers = np.uint32(seed), np.float32(gamma), np.float32(eta)
        latents, cells = _on_canvas([one.y_hat for one in symbols], canvas)
        quality = self._qualities(symbols)
        if mesh is not None and mesh.size > 1:
            latents, quality, cells = jax.device_put((latents, quality, cells), split_batch(mesh))
        compute = {"compute_type": self._compute_type}
        static, given = (self._config, steps, eta > 0), (params, latents, *numbers, quality, cells)
        made = programs.call(synthesize, static, given, **compute)
        if not np.asarray(made.finite).all():  # NumPy's own `all`: JAX's would be a program of its own
            raise unusable_decoder(self._config, params, latents, quality)
        return np.array(made.images)

    def _qualities(self, symbols: list[DecodedSymbols]) -> Float[np.ndarray, " b"] | None:
        """The qualities in the range that the network takes, from 0 to 1; None in a single-rate model."""
        if not self._config.variable_rate:
            return None
        return np.array([one.level / MAX_LEVEL for one in symbols], np.float32)


def _on_canvas(
    latents: list[Float[np.ndarray, "_ _ c"]], canvas: tuple[int, int] | None
) -> tuple[Float[np.ndarray, "b h w c"], Int[np.ndarray, "b 2"] | None]:
    """ŷ as a batch, and the height and width of each in cells if they are on a canvas, a size in pixels."""
    if canvas is None:
        return np.stack(latents), None
    batch = np.zeros((len(latents), *(side // LATENT_STRIDE for side in canvas), latents[0].shape[-1]), np.float32)
    for place, one in zip(batch, latents, strict=True):
        place[: one.shape[0], : one.shape[1]] = one
    return batch, np.array([one.shape[:2] for one in latents], np.int32)


def _tile_for(symbols: DecodedSymbols, tile: int | None) -> int | None:
    """The largest side of the tiles to decode an image in, or None to decode it whole."""
    height, width = (LATENT_STRIDE * cells for cells in symbols.y.shape[:2])
    tile = tiling.default_tile(height, width) if tile is None else tile
    return None if tile is None or tile >= max(height, width) else tile
