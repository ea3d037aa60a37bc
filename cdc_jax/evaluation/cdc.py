"""Rate points of our own codec, and how they form curves.

A variable-rate model forms a curve by itself, with a point for each quality or target size. Single-rate models form a
curve together: a family has one architecture and training setup, and several rate weights. Each step count is a
separate curve.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_jax.errors import ConfigError
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.size_search import byte_limit, largest_within
from cdc_jax.io.images import Image
from cdc_jax.models.config import MAX_QUALITY, ModelConfig, padded_sides

NAME = "CDC"
DEFAULT_QUALITIES = (5, 15, 25, 35, 45, 55, 65, 75, 85)
_LEVELS = 256  # levels per unit of quality, as files store it


@dataclass(frozen=True)
class OurSettings:
    """How our codec is evaluated.

    Attributes:
      steps: numbers of diffusion steps, 0 for the preview; None: `default_steps`.
      seed, gamma: seed and scale of the starting noise; gamma None: each bundle's default.
      qualities: qualities of variable-rate models, 0 to 100; None: `DEFAULT_QUALITIES`.
      targets_bpp: if not empty, the points are instead each image's largest files within these sizes.
    """

    steps: Sequence[int] | None = None
    seed: int = 0
    gamma: float | None = None
    qualities: Sequence[float] | None = None
    targets_bpp: Sequence[float] = ()


def our_points(
    families: Sequence[Sequence[str]],
    settings: OurSettings,
    *,
    names: Sequence[str] | None = None,
    load_codec: Callable,
    max_pixels: int,
) -> list[RatePoint]:
    """Loads bundles and returns their rate points.

    Args:
      families: the paths of the bundles of each family.
      settings: step counts, qualities, noise.
      names: names of the families; None: "CDC", followed by the bundles' names if there are several families.
      load_codec: `cdc_jax.load_codec`, or a stand-in.
      max_pixels: largest number of pixels of an image.

    Raises:
      ConfigError: a bundle is given twice; a family mixes prediction types, or has other members besides a
        variable-rate model; a step count or quality is invalid; or there are target sizes for a single-rate model.
      BundleError: a bundle is invalid.
    """
    names = names or _family_names(families)
    points: list[RatePoint] = []
    seen: dict[str, str] = {}
    for family, name in zip(families, names, strict=True):
        codecs = [_Model(load_codec(path, max_pixels=max_pixels), name, str(path)) for path in family]
        for model in codecs:
            other = seen.get(model.codec.weights_sha256)
            if other is not None:
                raise ConfigError(f"{model.path} has the same weights as {other}: give each bundle once.")
            seen[model.codec.weights_sha256] = model.path
        _check_family(codecs)
        for model in codecs:
            points += model.points(settings)
    return points


def default_steps(config: ModelConfig) -> tuple[int, ...]:
    """The step counts of the paper's evaluation; with the transform, the preview (0) and a few more."""
    if config.transform:
        return (0, 1, 5, 17)
    return (5, 20, 200) if config.prediction == "epsilon" else (1, 5, 17, 65)


class _Model:
    """A bundle on a curve. Caches the latents of the latest image, from which all of its files are written."""

    def __init__(self, codec: Any, family: str, path: str):
        self.codec, self.family, self.path = codec, family, path
        self._analyzed: tuple[Image, Any] | None = None

    def points(self, settings: OurSettings) -> list[RatePoint]:
        config = self.codec.config
        if settings.targets_bpp:
            if not config.variable_rate:
                raise ConfigError(f"{self.path} has one rate; only a variable-rate model can meet a target size.")
            steps = settings.steps or (config.decode_steps,)
        else:
            steps = settings.steps or default_steps(config)
        least = 0 if config.transform else 1
        for count in steps:
            if not least <= count <= config.num_timesteps:
                raise ConfigError(
                    f"{self.path} cannot decode in {count} steps; it takes {least} to {config.num_timesteps}."
                )
        gamma = float(config.decode_gamma if settings.gamma is None else settings.gamma)
        return [
            self._point(rate, count, settings.seed, gamma)
            for rate in self._rates(settings)
            for count in sorted(set(steps))
        ]

    def _rates(self, settings: OurSettings) -> list[_Rate]:
        if settings.targets_bpp:
            return [
                _Rate(f"{target:g} bpp", f"-{target:g}bpp", functools.partial(self._quality_within, target), target)
                for target in sorted(set(settings.targets_bpp))
            ]
        if not self.codec.config.variable_rate:
            return [_Rate(bundle_name(self.path), "", lambda image: None)]
        qualities = sorted(set(DEFAULT_QUALITIES if settings.qualities is None else settings.qualities))
        for quality in qualities:
            self.codec.check_quality(quality)
        return [_Rate(f"quality {q:g}", f"-q{q:g}", lambda image, q=q: q) for q in qualities]

    def _quality_within(self, target_bpp: float, image: Image) -> float:
        """The quality of the largest file within a size; 0 if even the smallest file is larger."""
        latents = self._latents(image)
        level = largest_within(
            lambda level: len(self.codec.write(latents, quality=level / _LEVELS)),
            0,
            MAX_QUALITY * _LEVELS,
            byte_limit(target_bpp, *image.shape[:2]),
        )
        return (level or 0) / _LEVELS

    def _side_share(self, image: Image, quality: float | None) -> float:
        z_bits, y_bits = self.codec.part_bits(self._latents(image), quality=quality)
        return z_bits / (z_bits + y_bits) if z_bits + y_bits else 0.0

    def _latents(self, image: Image):
        if self._analyzed is None or self._analyzed[0] is not image:
            self._analyzed = image, self.codec.analyze(image)
        return self._analyzed[1]

    def _point(self, rate: _Rate, steps: int, seed: int, gamma: float) -> RatePoint:
        codec, weights = self.codec, self.codec.weights_sha256[:12]
        word = {0: "0 steps (preview)", 1: "1 step"}.get(steps, f"{steps} steps")
        return RatePoint(
            curve=f"{self.family}, {word}",
            setting=rate.setting,
            slug=f"cdc-{weights}{rate.slug}-{steps}-steps-seed{seed}-gamma{gamma:g}",
            identity={
                "codec": "cdc",
                "weights": codec.weights_sha256,
                "rate": rate.slug,
                "steps": steps,
                "seed": seed,
                "gamma": gamma,
            },
            quality=rate.quality,
            encode=lambda image, quality: codec.compress(image, quality=quality),
            decode=lambda data: codec.decompress(data, steps=steps, seed=seed, gamma=gamma),
            file=f"cdc-{weights}{rate.slug}",
            suffix=".cdc",
            warm_key=lambda height, width: (codec.config, steps, *padded_sides(height, width)),
            kind="ours",
            steps=steps,
            description=f"cdc_jax, {codec.config.prediction} variant, width {codec.config.width}, {word}, "
            f"γ = {gamma:g}, seed {seed}",
            target_bpp=rate.target_bpp,
            side_share=self._side_share,
        )


@dataclass(frozen=True)
class _Rate:
    """A rate of a model: its name, its name in file names, the quality for an image, and the target size."""

    setting: str
    slug: str
    quality: Callable[[Image], float | None]
    target_bpp: float | None = None


def bundle_name(path: str) -> str:
    """A bundle's human-readable name: its folder's name, with the parent folder's if it is called `bundle`."""
    resolved = Path(os.path.abspath(path))
    return f"{resolved.parent.name}/{resolved.name}" if resolved.name == "bundle" else resolved.name


def _check_family(models: Sequence[_Model]) -> None:
    paths = ", ".join(model.path for model in models)
    variants = {model.codec.config.prediction for model in models}
    if len(variants) > 1:
        raise ConfigError(
            f"{paths} are of different variants ({', '.join(sorted(variants))}) and cannot form one curve: give each "
            "variant a --model option of its own."
        )
    if len(models) > 1 and any(model.codec.config.variable_rate for model in models):
        raise ConfigError(f"{paths}: A variable-rate model forms a curve by itself: give it its own --model option.")


def _family_names(families: Sequence[Sequence[str]]) -> list[str]:
    if len(families) == 1:
        return [NAME]
    names = []
    for number, family in enumerate(families, 1):
        common = os.path.commonprefix([bundle_name(path) for path in family]).strip("-_ ./")
        name = f"{NAME} {common or number}"
        names.append(name if name not in names else f"{name} ({number})")
    return names
