"""Measurements on images that a run does not train on: rate, PSNR, and the objective that selects the best checkpoint.

    objective = β_rate · bpp + (1 − ρ) · diffusion loss + ρ · LPIPS

with the configuration's final β_rate and ρ, always on the same crops, noise levels and noise. In distillation, the
diffusion loss is the error against the teacher.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, UInt8

from cdc_jax.codec.decoding import synthesize
from cdc_jax.io.images import Image, pad_to_multiple
from cdc_jax.io.pixels import to_unit_range
from cdc_jax.metrics.distortion import psnr_db
from cdc_jax.models.config import MAX_QUALITY, STRIDE, ModelConfig
from cdc_jax.models.params import Params, merge
from cdc_jax.training.checkpoints import OBJECTIVE
from cdc_jax.training.config import model_config
from cdc_jax.training.imitation import Teacher
from cdc_jax.training.loss import loss_and_metrics
from cdc_jax.training.randomness import step_randomness

MOST_IMAGES = 8
MOST_PIXELS_A_SIDE = 512  # larger images are center-cropped to this size
_ROWS = 4  # smallest batch size for the objective
_STEP = 2**31 - 1  # the objective uses the random numbers of this step, which no run reaches


class Validation:
    """Measures weights on validation images.

    Args:
      config: the run's settings.
      images: (name, image) pairs, about `MOST_IMAGES` or fewer. Several images are center-cropped to one size: the
        largest one that all of them contain, with sides that are multiples of 64 pixels.
      perceptual: LPIPS-VGG's weights if `loss.rho` is not 0, else {}.
      teacher: the teacher on the host, in distillation.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        images: Sequence[tuple[str, Image]],
        perceptual: Mapping[str, Array],
        teacher: Teacher | None = None,
    ):
        self._config = config
        most = MOST_PIXELS_A_SIDE
        images = [(name, _center_crop(image, most, most)) for name, image in images]
        self._images = _crop_to_one_size(images) if len(images) > 1 else images
        self._perceptual = {name: np.asarray(value) for name, value in perceptual.items()}
        self._teacher = teacher
        crops = [_square_crop(image, config.data.crop) for _, image in images]
        self._crops = np.stack([crops[i % len(crops)] for i in range(max(_ROWS, len(crops)))]) if crops else None

    def __bool__(self) -> bool:
        return bool(self._images)

    def measure(self, params: Params) -> tuple[dict[str, float], dict[str, Image]]:
        """Measures weights.

        Args:
          params: all weights by name, on one device.

        Returns:
          The metrics by name, including `OBJECTIVE`, averaged over the images; and the first image and its decoded
          versions, by title.
        """
        variable_rate = model_config(self._config).variable_rate
        qualities = self._config.train.eval_qualities if variable_rate else (None,)
        metrics: dict[str, list[float]] = {}
        shown = {"original": self._images[0][1]}
        for index, (_, image) in enumerate(self._images):
            for quality in qualities:
                values, decodes = self._measure_image(params, image, quality)
                for name, value in values.items():
                    metrics.setdefault(name, []).append(value)
                shown |= decodes if index == 0 else {}
        means = {name: float(np.mean(values)) for name, values in metrics.items()}
        means[OBJECTIVE] = float(self._objective(params, self._crops, self._perceptual, self._teacher))
        return means, shown

    def _measure_image(
        self, params: Params, image: Image, quality: int | None
    ) -> tuple[dict[str, float], dict[str, Image]]:
        """(metrics by name, decoded images by title) of one image. The quality is None in a single-rate model."""
        config, model = self._config, model_config(self._config)
        height, width, _ = image.shape
        level = np.array([(quality or 0) / MAX_QUALITY], np.float32) if model.transform else None
        name_suffix, title_suffix = ("", "") if quality is None else (f"_q{quality}", f", quality {quality}")
        y_hat, rate_bits, hyper_bits = _compress(model, params, pad_to_multiple(image, STRIDE)[None], level)
        values = {f"validation_bpp{name_suffix}": float(rate_bits[0]) / (height * width)}
        if model.transform:
            values[f"validation_hyper_share{name_suffix}"] = float(hyper_bits[0] / rate_bits[0])
        decodes = {}
        for steps in config.train.eval_steps:
            settings = np.uint32(0), np.float32(config.model.decode_gamma), np.float32(0)
            rate = level if model.variable_rate else None
            decoded = synthesize(model, steps, False, params, y_hat, *settings, rate).images
            decoded = np.asarray(decoded[0])[:height, :width]
            values[f"validation_psnr_db_{steps}{name_suffix}"] = psnr_db(image, decoded)
            decodes[f"{steps} steps{title_suffix}"] = decoded
        return values, decodes

    @functools.cached_property
    def _objective(self):
        config = self._config.copy_and_resolve_references()
        with config.unlocked():
            config.loss.spread_timesteps, config.loss.max_noise_fraction = True, 0.0

        def objective(params: Params, crops, perceptual, teacher) -> Float[Array, ""]:
            randomness = step_randomness(config, jnp.int32(_STEP), crops.shape[0])
            arguments = config, params, to_unit_range(crops), randomness, config.loss.beta, perceptual
            terms = loss_and_metrics(*arguments, teacher=teacher)[1]
            return terms["loss"] - terms["prior_loss"]

        return jax.jit(objective)


def _crop_to_one_size(images: list[tuple[str, Image]]) -> list[tuple[str, Image]]:
    """Center-crops images to one size: each additional size would compile another program, for minutes on TPUs."""
    smallest = (min(image.shape[axis] for _, image in images) for axis in (0, 1))
    height, width = (max(STRIDE, length // STRIDE * STRIDE) for length in smallest)
    return [(name, _center_crop(image, height, width)) for name, image in images]


def _center_crop(image: Image, height: int, width: int) -> Image:
    """The center of an image, of at most this size."""
    top, left = (max(0, (has - wanted) // 2) for has, wanted in zip(image.shape, (height, width), strict=False))
    return image[top : top + height, left : left + width]


def _square_crop(image: Image, side: int) -> Image:
    """The center of an image, padded to side × side pixels where the image is smaller."""
    center = _center_crop(image, side, side)
    bottom, right = (side - length for length in center.shape[:2])
    return np.pad(center, ((0, bottom), (0, right), (0, 0)), mode="edge")


@functools.partial(jax.jit, static_argnums=0)
def _compress(model: ModelConfig, params: Params, images: UInt8[Array, "b h w 3"], quality=None):
    compressed = merge(model, params).compress(to_unit_range(images), quality=quality)
    return compressed.y_hat, compressed.rate_bits, compressed.hyper_bits
