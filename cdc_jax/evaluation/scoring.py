"""Scores several versions of one image. A metric's features of the original are computed once for all versions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cdc_jax.errors import ConfigError, reason_of
from cdc_jax.io.images import Image

BATCH_PIXELS = 2**22  # total number of pixels of the images in one call of a metric


@dataclass(frozen=True)
class MetricFacts:
    """A metric, as tables and plots need it.

    Attributes:
      name: name on the command line, which determines the definition: "lpips-alex", "lpips-vgg".
      label: human-readable name.
      higher_is_better: whether higher scores are better.
    """

    name: str
    label: str
    higher_is_better: bool


class Metrics:
    """The metrics of an evaluation, each loaded once.

    Args:
      names: names of metrics that compare images or sets of images.
      fid_weights: file of Inception weights, which "fid" needs.
      loaders: a replacement for `metrics.registry`, for tests: an object with `IMAGE_METRICS`, `SET_METRICS`,
        `load_metric`, `load_set_metric`.

    Attributes:
      of_images: the metrics that compare images, by name.
      of_sets: the metrics that compare sets of images, by name.
      facts: name, label and direction of all metrics, in the given order.

    Raises:
      ConfigError: a name is unknown, or "fid" is given without weights.
      CdcError: a metric's package or weights are missing.
    """

    def __init__(self, names: Sequence[str], *, fid_weights: str | None = None, loaders: Any = None):
        if loaders is None:
            from cdc_jax.metrics import registry as loaders
        known = (*loaders.IMAGE_METRICS, *loaders.SET_METRICS)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(f"There is no metric {unknown[0]!r}; known are {', '.join(known)}.")
        names = list(dict.fromkeys(names))
        self.of_images = {name: loaders.load_metric(name) for name in names if name in loaders.IMAGE_METRICS}
        self.of_sets, self._set_keys = {}, {}
        for name in names:
            if name not in loaders.SET_METRICS:
                continue
            weights = fid_weights if name == "fid" else None
            if name == "fid" and weights is None:
                raise ConfigError("The metric fid needs --fid-weights: the Inception weights of pytorch-fid.")
            self.of_sets[name] = loaders.load_set_metric(name, weights=weights)
            self._set_keys[name] = name if weights is None else f"{name}-{_file_hash(weights)[:12]}"
        loaded = {**self.of_images, **self.of_sets}
        self.facts = [MetricFacts(name, loaded[name].label, loaded[name].higher_is_better) for name in names]

    def set_key(self, name: str) -> str:
        """The name under which the features of a metric on sets are stored; it depends on the metric's weights."""
        return self._set_keys[name]

    def features(self, name: str, image: Image) -> Float[np.ndarray, "n d"]:
        """The features of an image for a metric on sets, one row per patch."""
        return np.asarray(self.of_sets[name].patches_features(image), np.float32)

    def set_distance(self, name: str, originals: Float[np.ndarray, "n d"], decoded: Float[np.ndarray, "n d"]) -> float:
        """The value of a metric on sets, given the features of all images; NaN if there are too few."""
        metric = self.of_sets[name]
        metric.restore({"reference": originals, "decoded": decoded})
        return float(metric.distance())

    def against(self, original: Image) -> Scorer:
        """A scorer for versions of one original."""
        return Scorer(self, original)


class Scorer:
    """Scores versions of one original with the metrics that compare images."""

    def __init__(self, metrics: Metrics, original: Image):
        self._metrics = metrics
        self._original = original
        self._references: dict[str, Any] = {}

    def scores(self, name: str, images: Sequence[Image]) -> Float[np.ndarray, " b"]:
        """The scores of several versions of the original on one metric, in float64; NaN if it is too small."""
        metric = self._metrics.of_images[name]
        if name not in self._references:
            self._references[name] = metric.reference(self._original)
        height, width, _ = self._original.shape
        size = max(1, BATCH_PIXELS // (height * width))
        batches = [np.stack(images[i : i + size]) for i in range(0, len(images), size)]
        scores = [np.asarray(metric.score(self._references[name], batch), np.float64) for batch in batches]
        return np.concatenate(scores) if scores else np.zeros(0)


def _file_hash(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason_of(error)}.") from None
