"""Rate–distortion curves: averages over images, and the Bjøntegaard delta rate between two curves.

As in the literature, averages are means over images of each image's bits per pixel and score.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cdc_jax.errors import CdcError
from cdc_jax.evaluation.measure import Measured
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.scoring import MetricFacts
from cdc_jax.evaluation.settings import MIN_OVERLAP

MIN_POINTS = 3
_NORMAL_95 = 1.96  # 95 % of a normal distribution lie within this many standard deviations


@dataclass
class Curve:
    """One codec's averages at each of its rate points, sorted by rate.

    Attributes:
      name: the codec's name, such as "JPEG" or "CDC, 5 steps".
      kind: "ours", "baseline" or "published".
      settings: each point's setting, human-readable.
      bpp: each point's bits per pixel.
      scores: each point's score, by metric; NaN if there is none.
      slugs: each point's slug; empty for published curves.
      encoding_seconds, decoding_seconds: mean times per image; empty for published curves.
      steps: number of diffusion steps of our codec; None for others.
      description: a description for result files and the report.
      side_shares: mean fraction of the file that is side information, 0 to 1; None for other codecs.
      intervals: for each score, half of the 95 % confidence interval of the mean over images; NaN if there is none.
    """

    name: str
    kind: str
    settings: list[str]
    bpp: list[float]
    scores: dict[str, list[float]]
    slugs: list[str] = field(default_factory=list)
    encoding_seconds: list[float] = field(default_factory=list)
    decoding_seconds: list[float] = field(default_factory=list)
    steps: int | None = None
    description: str = ""
    side_shares: list[float | None] = field(default_factory=list)
    intervals: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class BdRate:
    """A Bjøntegaard delta rate, or the reason why there is none.

    Attributes:
      curve, anchor: names of the two curves.
      metric: name of the metric.
      percent: difference in rate at equal quality; −20 means that `curve` needs 20 % fewer bits than `anchor`. None if
        it was refused.
      overlap: intersection over union of the two curves' ranges of quality, 0 to 1.
      reason: the reason for refusing it; "" if it was not refused.
    """

    curve: str
    anchor: str
    metric: str
    percent: float | None
    overlap: float
    reason: str = ""


def average(
    measured: Measured, points: Sequence[RatePoint], metrics: Sequence[MetricFacts]
) -> tuple[list[Curve], dict[str, list[str]]]:
    """Averages measurements over images.

    An image whose score is not finite at some point (because it is too small for the metric or, for PSNR, equals the
    original) is left out of that metric's averages, for all codecs.

    Args:
      measured: the measurements.
      points: all rate points.
      metrics: the metrics to average.

    Returns:
      The curves, and for each metric, the names of the images that were left out, if any.
    """
    excluded = {metric.name: _without_score(measured, points, metric.name) for metric in metrics}
    members: dict[str, list[RatePoint]] = {}
    for point in points:
        members.setdefault(point.curve, []).append(point)
    averages = _Averages(measured, excluded)
    curves = [averages.curve(points, metrics) for points in members.values()]
    return curves, {metric: names for metric, names in excluded.items() if names}


def _without_score(measured: Measured, points: Sequence[RatePoint], metric: str) -> list[str]:
    """The names of images that have no finite score at some point. Metrics on sets have one score for all images."""
    if metric in measured.set_scores:
        return []
    return [
        name
        for name, records in measured.records.items()
        if not all(math.isfinite(records[point.slug].scores[metric]) for point in points)
    ]


@dataclass(frozen=True)
class _Averages:
    """Averages of measurements over images; `excluded` are the images to leave out, by metric."""

    measured: Measured
    excluded: Mapping[str, Sequence[str]]

    def curve(self, points: Sequence[RatePoint], metrics: Sequence[MetricFacts]) -> Curve:
        """The curve that these points lie on."""
        points = sorted(points, key=lambda point: self._mean(point, "bpp"))
        return Curve(
            name=points[0].curve,
            kind=points[0].kind,
            settings=[point.setting for point in points],
            slugs=[point.slug for point in points],
            bpp=[self._mean(point, "bpp") for point in points],
            scores={metric.name: [self._score(point, metric.name) for point in points] for metric in metrics},
            encoding_seconds=[self._mean(point, "encoding_seconds") for point in points],
            decoding_seconds=[self._mean(point, "decoding_seconds") for point in points],
            steps=points[0].steps,
            description=points[0].description,
            side_shares=[None if p.side_share is None else self._mean(p, "side_share") for p in points],
            intervals={metric.name: [half_width(self._values(p, metric.name)) for p in points] for metric in metrics},
        )

    def _mean(self, point: RatePoint, attribute: str) -> float:
        return _mean([getattr(records[point.slug], attribute) for records in self.measured.records.values()])

    def _score(self, point: RatePoint, metric: str) -> float:
        if metric in self.measured.set_scores:
            return self.measured.set_scores[metric][point.slug]
        return _mean(self._values(point, metric))

    def _values(self, point: RatePoint, metric: str) -> list[float]:
        """The scores that are averaged; none for metrics on sets."""
        if metric in self.measured.set_scores:
            return []
        records = self.measured.records.items()
        return [by_slug[point.slug].scores[metric] for name, by_slug in records if name not in self.excluded[metric]]


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of a mean, 1.96 standard errors; NaN for fewer than 2 values."""
    return float(_NORMAL_95 * np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def bd_rate(curve: Curve, anchor: Curve, metric: MetricFacts, *, min_overlap: float = MIN_OVERLAP) -> BdRate:
    """The mean difference in rate at equal quality, over the qualities that both curves reach (Bjøntegaard 2001).

    The logarithm of the rate is interpolated over quality with Akima's method. Scores of lower-is-better metrics are
    negated.

    Args:
      curve, anchor: the curves to compare.
      metric: the measure of quality.
      min_overlap: smallest `relative_overlap` of their qualities; below it, the BD-rate is refused.

    Returns:
      The BD-rate, or the reason for refusing it.

    Raises:
      CdcError: bjontegaard is not installed.
    """
    sign = 1 if metric.higher_is_better else -1
    (test_rate, test), (anchor_rate, reference) = (_points(c, metric.name, sign) for c in (curve, anchor))

    def refused(reason: str, overlap: float = 0.0) -> BdRate:
        return BdRate(curve.name, anchor.name, metric.name, None, overlap, reason)

    for name, values in ((curve.name, test), (anchor.name, reference)):
        if len(values) < MIN_POINTS:
            return refused(f"{name} has {len(values)} of the {MIN_POINTS} points that a curve needs")
        if not (np.diff(values) > 0).all():
            return refused(f"the quality of {name} does not rise with its rate")
    overlap = relative_overlap(test, reference)
    if overlap < min_overlap:
        return refused(f"the curves share {overlap:.0%} of their quality range, less than {min_overlap:.0%}", overlap)
    try:
        import bjontegaard
    except ImportError:
        raise CdcError("BD-rates need the package bjontegaard: pip install '.[eval]'.") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        percent = bjontegaard.bd_rate(
            anchor_rate, reference, test_rate, test, method="akima", require_matching_points=False, min_overlap=0
        )
    return BdRate(curve.name, anchor.name, metric.name, float(percent), overlap)


def relative_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two ranges, 0 to 1; each is given by values that span it."""
    union = max(max(a), max(b)) - min(min(a), min(b))
    shared = min(max(a), max(b)) - max(min(a), min(b))
    return max(0.0, shared) / union if union > 0 else 0.0


def bd_rates(
    curves: Sequence[Curve], anchor: Curve, metrics: Sequence[MetricFacts], *, min_overlap: float = MIN_OVERLAP
) -> list[BdRate]:
    """The BD-rate of every other curve against the anchor, for every metric that both have."""
    return [
        bd_rate(curve, anchor, metric, min_overlap=min_overlap)
        for metric in metrics
        for curve in curves
        if curve.name != anchor.name and metric.name in curve.scores and metric.name in anchor.scores
    ]


def _points(curve: Curve, metric: str, sign: int):
    pairs = sorted((r, sign * s) for r, s in zip(curve.bpp, curve.scores[metric], strict=True) if math.isfinite(s))
    return np.array([rate for rate, _ in pairs]), np.array([score for _, score in pairs])
