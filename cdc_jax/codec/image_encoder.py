"""Encodes images to files: the latents on a device, symbols and stream on the host."""

from __future__ import annotations

import functools
from numbers import Real
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.codec.bundle import Bundle
from cdc_jax.codec.device_pool import LocalDevices
from cdc_jax.codec.encoding import image_latents, rate_bits
from cdc_jax.codec.memory import encoding_bytes, room_for
from cdc_jax.codec.unusable_weights import unusable_encoder
from cdc_jax.entropy.coder import EntropyCoder, rounded, to_symbols
from cdc_jax.errors import ConfigError
from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.images import Image, pad_to_multiple
from cdc_jax.models.config import MAX_QUALITY, STRIDE, ModelConfig

DEFAULT_QUALITY = 50.0
_MAX_LATENT = 1e12  # symbols are clipped far below this; larger values come from unusable weights


class ImageLatents(NamedTuple):
    """The encoder's result for an image, which does not depend on the quality.

    Attributes:
      height, width: the image's size in pixels, before padding.
      y: the latents before quantization, float32.
      z: the symbols of the hyper latents, int32.
      chunks: the chunks of the image's files.
    """

    height: int
    width: int
    y: Float[np.ndarray, "h w c"]
    z: Int[np.ndarray, "h/4 w/4 z"]
    chunks: tuple[Chunk, ...] = ()


def quality_level(config: ModelConfig, quality: float | None) -> int | None:
    """A quality's level, in units of 1/256 as files store it.

    Args:
      config: the model's settings.
      quality: 0 to 100, or None for the default: 50 in a variable-rate model.

    Returns:
      The level, which is 0 for a single-rate model with a transform, and None for a model of format 1.

    Raises:
      ConfigError: the quality is not a number from 0 to 100, or is given for a single-rate model.
    """
    if not config.variable_rate:
        if quality is not None:
            raise ConfigError("This model has one rate: leave the quality out.")
        return 0 if config.transform else None
    quality = DEFAULT_QUALITY if quality is None else quality
    is_number = isinstance(quality, Real) and not isinstance(quality, bool)
    if not (is_number and 0 <= quality <= MAX_QUALITY):
        shown = quality if is_number else f"a {type(quality).__name__}"
        raise ConfigError(f"quality is {shown}; it must be a number from 0 to {MAX_QUALITY}.")
    return round(float(quality) * cdc_file.QUALITY_STEPS)


class ImageEncoder:
    """Encodes images to files. Safe to use from several threads.

    Args:
      bundle: the model.
      coder: the entropy coder of its coding model.
      devices: the devices, with the model's weights.
    """

    def __init__(self, bundle: Bundle, coder: EntropyCoder, devices: LocalDevices):
        self._config, self._coding, self._coder, self._devices = bundle.config, bundle.coding, coder, devices
        self._params = bundle.params
        self._medians = np.asarray(bundle.params["compressor.prior.medians"])

    def analyze(self, image: Image, chunks: tuple[Chunk, ...] = ()) -> ImageLatents:
        """Runs the encoder.

        Args:
          image: uint8 [h, w, 3] of any size.
          chunks: the chunks of its files.

        Raises:
          BundleError: the latents are not finite, or far too large.
          OutOfMemoryError: there is not enough memory.
        """
        height, width, _ = image.shape
        room = room_for(f"Compressing {width}x{height} pixels", encoding_bytes(height, width, self._config))
        with room, self._devices.one() as params:
            y, z = image_latents(self._config, params, pad_to_multiple(image, STRIDE))
            for values, part in ((y, "encoder"), (z, "hyper_encoder")):
                if not np.abs(values).max() <= _MAX_LATENT:
                    raise unusable_encoder(params, part)
        return ImageLatents(height, width, y, to_symbols(z - self._medians), chunks)

    def write(self, latents: ImageLatents, level: int | None) -> bytes:
        """The bytes of the file with a level of `quality_level`."""
        z, y, scale_index = self._symbols(latents, level)
        stream = self._coder.encode(z, y, scale_index)
        size = latents.height, latents.width
        return cdc_file.pack(self._coding.fingerprint, *size, stream, level=level, chunks=latents.chunks)

    def part_bits(self, latents: ImageLatents, level: int | None) -> tuple[float, float]:
        """The ideal bits for z and for y in the file of `write`."""
        return self._coder.part_bits(*self._symbols(latents, level))

    def estimate_bits(self, image: Image, level: int | None) -> float:
        """−log₂ p of an image's rounded latents under the float model."""
        rate = None if level is None else np.array([level / cdc_file.MAX_LEVEL], np.float32)
        return float(rate_bits(self._config, self._params, pad_to_multiple(image, STRIDE)[None], rate)[0])

    def _symbols(self, latents: ImageLatents, level: int | None):
        coded = self._coding.latents.code(latents.z, level or 0, functools.partial(rounded, latents.y))
        return latents.z, coded.symbols, coded.scale_index
