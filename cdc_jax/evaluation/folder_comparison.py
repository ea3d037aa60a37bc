"""Scores the images of one folder against those of another, such as images decoded by another codec."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdc_jax.errors import CdcError, ConfigError, ImageError
from cdc_jax.evaluation.curves import half_width
from cdc_jax.evaluation.measure import find_images
from cdc_jax.evaluation.scoring import Metrics
from cdc_jax.io.files import MAX_PIXELS
from cdc_jax.io.images import load_image
from cdc_jax.metrics.registry import SET_METRICS


@dataclass(frozen=True)
class Mean:
    """A mean over images.

    Attributes:
      value: the mean; NaN without images.
      half_width: half of its 95 % confidence interval, 1.96 standard errors; NaN for fewer than 2 images.
      images: the number of images.
    """

    value: float
    half_width: float
    images: int


@dataclass(frozen=True)
class FolderComparison:
    """The scores of the images that are in both folders.

    Attributes:
      scores: for each image, its score by metric; NaN if it is too small for a metric.
      failed: the reason for each image that has no counterpart of its size, or cannot be read.
    """

    scores: Mapping[str, Mapping[str, float]]
    failed: Mapping[str, str]

    def mean(self, metric: str) -> Mean:
        """The mean of the finite scores. An image that equals its original has an infinite PSNR, which is left out."""
        values = [scores[metric] for scores in self.scores.values() if math.isfinite(scores[metric])]
        return Mean(float(np.mean(values)) if values else math.nan, half_width(values), len(values))


def compare_folders(
    originals: str,
    decoded: str,
    metrics: Sequence[str],
    *,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[], object] = lambda: None,
) -> FolderComparison:
    """Scores every original against the image of the same name, whatever their formats.

    Args:
      originals, decoded: two folders, or two image files.
      metrics: names of `metrics.IMAGE_METRICS`.
      max_pixels: larger images are refused.
      progress: called after each image.

    Raises:
      ConfigError: there is no image, two images differ only in their suffix, or a metric is unknown or for sets.
      CdcError: a metric's weights are missing, or no image could be compared.
    """
    for name in metrics:
        if name in SET_METRICS:
            raise ConfigError(f"The metric {name} compares sets of images: leave it out.")
    loaded = Metrics(metrics)
    first, second = _by_stem(originals), _by_stem(decoded)
    if Path(originals).is_file() and Path(decoded).is_file():  # whatever their names are
        second = dict(zip(first, second.values(), strict=True))
    scores, failed = {}, {}
    for stem, (name, path) in first.items():
        try:
            if stem not in second:
                raise ImageError(f"{name}: There is no image of this name in {decoded}.")
            original, other = (load_image(file, max_pixels=max_pixels)[0] for file in (path, second[stem][1]))
            if original.shape != other.shape:
                sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (original, other))
                raise ImageError(f"{name}: The images have different sizes, {sizes}.")
            scorer = loaded.against(original)
            scores[name] = {metric: float(scorer.scores(metric, [other])[0]) for metric in loaded.of_images}
        except ImageError as error:
            failed[name] = str(error)
        progress()
    if not scores:
        raise CdcError(f"None of the {len(first)} images could be compared: {next(iter(failed.values()))}")
    return FolderComparison(scores, failed)


def _by_stem(folder: str) -> dict[str, tuple[str, Path]]:
    """Name and path of each image, by its name without suffix."""
    images: dict[str, tuple[str, Path]] = {}
    for name, path in find_images(folder).items():
        stem = name[: len(name) - len(path.suffix)]
        if stem in images:
            raise ConfigError(f"{folder}: {images[stem][0]} and {name} have one name: which is the image?")
        images[stem] = name, path
    return images
