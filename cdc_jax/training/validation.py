"""What a run measures on pictures that it does not train on: rate, PSNR after few steps, and the loss that picks
the best.

    objective = β_rate · bpp + (1 − ρ) · diffusion loss + ρ · LPIPS

with the configuration's final β_rate and ρ, always on the same crops at the same noise levels and noise.
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
from cdc_jax.io.images import pad_to_multiple
from cdc_jax.io.pixels import to_unit_range
from cdc_jax.metrics.distortion import psnr_db
from cdc_jax.models.config import MAX_QUALITY, STRIDE, ModelConfig
from cdc_jax.models.params import Params, merge
from cdc_jax.training.checkpoints import OBJECTIVE
from cdc_jax.training.config import model_config
from cdc_jax.training.loss import draw, loss_and_metrics

MOST_PICTURES = 8
MOST_PIXELS_A_SIDE = 512  # of a picture; its middle is measured
_ROWS = 4  # of the batch that the objective is taken on, at least
_STEP = 2**31 - 1  # whose draws it uses: no run trains that long

Picture = UInt8[np.ndarray, "h w 3"]


class HeldOut:
    """Measures weights on held-out pictures.

    Args:
      config: the run's settings.
      pictures: (name, picture) each; MOST_PICTURES of them are plenty. Rate and PSNR of several are taken on their
        middles, of the largest size that all of them have, in multiples of 64 pixels.
      perceptual: LPIPS-VGG's weights where loss.rho is not 0, else empty.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        pictures: Sequence[tuple[str, Picture]],
        perceptual: Mapping[str, Array],
    ):
        self._config = config
        most = MOST_PIXELS_A_SIDE
        pictures = [(name, _middle(picture, most, most)) for name, picture in pictures]
        self._pictures = _of_one_size(pictures) if len(pictures) > 1 else pictures
        self._perceptual = {name: np.asarray(value) for name, value in perceptual.items()}
        crops = [_crop(picture, config.data.crop) for _, picture in pictures]
        self._crops = np.stack([crops[i % len(crops)] for i in range(max(_ROWS, len(crops)))]) if crops else None

    def __bool__(self) -> bool:
        return bool(self._pictures)

    def measure(self, params: Params) -> tuple[dict[str, float], dict[str, Picture]]:
        """(figures by name, averaged over the pictures; the first picture and its decodes, by title)."""
        config, model = self._config, model_config(self._config)
        figures: dict[str, list[float]] = {}
        shown = {}
        qualities = config.train.eval_qualities if model.variable_rate else (None,)
        for index, (_, picture) in enumerate(self._pictures):
            height, width, _ = picture.shape
            padded = pad_to_multiple(picture, STRIDE)[None]
            if index == 0:
                shown["original"] = picture
            for quality in qualities:
                level = np.array([(quality or 0) / MAX_QUALITY], np.float32) if model.transform else None
                suffix = "" if quality is None else f"_q{quality}"
                y_hat, rate_bits, hyper_bits = _compress(model, params, padded, level)
                values = {f"held_out_bpp{suffix}": float(rate_bits[0]) / (height * width)}
                if model.transform:
                    values[f"held_out_hyper_share{suffix}"] = float(hyper_bits[0] / rate_bits[0])
                for steps in config.train.eval_steps:
                    settings = np.uint32(0), np.float32(config.model.decode_gamma), np.float32(0)
                    rate = level if model.variable_rate else None
                    decoded = np.asarray(synthesize(model, steps, False, params, y_hat, *settings, rate)[0])
                    decoded = decoded[:height, :width]
                    values[f"held_out_psnr_db_{steps}{suffix}"] = psnr_db(picture, decoded)
                    if index == 0:
                        title = f"{steps} steps" if quality is None else f"{steps} steps, quality {quality}"
                        shown[title] = decoded
                for name, value in values.items():
                    figures.setdefault(name, []).append(value)
        means = {name: float(np.mean(values)) for name, values in figures.items()}
        means[OBJECTIVE] = float(self._objective(params, self._crops, self._perceptual))
        return means, shown

    @functools.cached_property
    def _objective(self):
        config = self._config.copy_and_resolve_references()
        with config.unlocked():
            config.loss.spread_timesteps, config.loss.content_share = True, 0.0

        def objective(params: Params, crops, perceptual) -> Float[Array, ""]:
            draws = draw(config, jnp.int32(_STEP), crops.shape[0])
            terms = loss_and_metrics(config, params, to_unit_range(crops), draws, config.loss.beta, perceptual)[1]
            return terms["loss"] - terms["prior_loss"]

        return jax.jit(objective)


def _of_one_size(pictures: list[tuple[str, Picture]]) -> list[tuple[str, Picture]]:
    """Their middles: each size more would be compiled by itself, minutes of it on TPUs."""
    smallest = (min(picture.shape[axis] for _, picture in pictures) for axis in (0, 1))
    height, width = (max(STRIDE, length // STRIDE * STRIDE) for length in smallest)
    return [(name, _middle(picture, height, width)) for name, picture in pictures]


def _middle(picture: Picture, height: int, width: int) -> Picture:
    top, left = (max(0, (has - wanted) // 2) for has, wanted in zip(picture.shape, (height, width), strict=False))
    return picture[top : top + height, left : left + width]


def _crop(picture: Picture, side: int) -> Picture:
    middle = _middle(picture, side, side)
    bottom, right = (side - length for length in middle.shape[:2])
    return np.pad(middle, ((0, bottom), (0, right), (0, 0)), mode="edge")


@functools.partial(jax.jit, static_argnums=0)
def _compress(model: ModelConfig, params: Params, images: UInt8[Array, "b h w 3"], quality=None):
    compressed = merge(model, params).compress(to_unit_range(images), quality=quality)
    return compressed.y_hat, compressed.rate_bits, compressed.hyper_bits
