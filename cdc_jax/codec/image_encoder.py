"""From an image to its file: latents on a device, symbols and stream on the host."""

from __future__ import annotations

from numbers import Real
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.codec.bundle import Bundle
from cdc_jax.codec.device_pool import LocalDevices
from cdc_jax.codec.encoding import image_latents
from cdc_jax.codec.unusable_weights import unusable_encoder
from cdc_jax.entropy.coder import MAX_ABS_SYMBOL, EntropyCoder
from cdc_jax.entropy.latents import Pass
from cdc_jax.errors import ConfigError
from cdc_jax.io import cdc_file
from cdc_jax.io.images import Image
from cdc_jax.models.config import MAX_QUALITY, ModelConfig

DEFAULT_QUALITY = 50.0


class ImageLatents(NamedTuple):
    """What every quality's file of an image is made from.

    Attributes:
      height, width: of the image, in pixels.
      y: the latents before quantization.
      z: symbols of the hyper latents.
    """

    height: int
    width: int
    y: Float[np.ndarray, "h w c"]
    z: Int[np.ndarray, "h/4 w/4 z"]


def quality_level(config: ModelConfig, quality: float | None) -> int | None:
    """A quality in units of 1/256, as files store it; None in a model of format 1.

    Raises:
      ConfigError: it is not from 0 to 100, or the model has one rate.
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
    """Makes files of images. Safe to use from several threads.

    Args:
      bundle: the model.
      coder: of its coding model.
      devices: with its weights.
    """

    def __init__(self, bundle: Bundle, coder: EntropyCoder, devices: LocalDevices):
        self._config, self._coding, self._coder, self._devices = bundle.config, bundle.coding, coder, devices
        self._medians = np.asarray(bundle.params["compressor.prior.medians"])

    def analyze(self, padded: Image, height: int, width: int) -> ImageLatents:
        """The latents of an image that is padded to multiples of 64.

        Raises:
          BundleError: they are not finite, or far too large.
        """
        with self._devices.one() as params:
            y, z = image_latents(self._config, params, padded)
            for values, part in ((y, "encoder"), (z, "hyper_encoder")):
                if not np.abs(values).max() <= MAX_ABS_SYMBOL:
                    raise unusable_encoder(params, part)
        return ImageLatents(height, width, y, _to_symbols(z - self._medians))

    def write(self, latents: ImageLatents, level: int | None) -> bytes:
        """The file of a quality, from `quality_level`."""
        z, y, scale_index = self._symbols(latents, level)
        stream = self._coder.encode(z, y, scale_index)
        return cdc_file.pack(self._coding.fingerprint, latents.height, latents.width, stream, level=level)

    def part_bits(self, latents: ImageLatents, level: int | None) -> tuple[float, float]:
        """Ideal bits of z and of y in that file."""
        return self._coder.part_bits(*self._symbols(latents, level))

    def _symbols(self, latents: ImageLatents, level: int | None):
        def rounded(step: Pass) -> Int[np.ndarray, "h w c"]:
            distance = latents.y - step.mean
            return _to_symbols(distance if step.gain is None else distance * step.gain)

        coded = self._coding.latents.code(latents.z, level or 0, rounded)
        return latents.z, coded.symbols, coded.scale_index


def _to_symbols(values: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Rounds half to even; beyond ±2²³, which no trained model reaches, symbols are clipped."""
    return np.clip(np.rint(values), -MAX_ABS_SYMBOL, MAX_ABS_SYMBOL).astype(np.int32)
