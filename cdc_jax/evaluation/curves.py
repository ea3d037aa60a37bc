"""Rate–distortion curves: averages over images, and the Bjøntegaard delta rate between two curves.

Averages are means over images of each image's own bits per pixel and score, as in the literature.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cdc_jax.errors import CdcError
from cdc_jax.evaluation.measure import Measured
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.scoring import MetricFacts
from cdc_jax.evaluation.settings import MIN_OVERLAP

MIN_POINTS = 3


@dataclass
class Curve:
    """One codec's averages, its points sorted by rate.

    Attributes:
      name: "JPEG", "CDC, 5 steps".
      kind: "ours", "baseline" or "published".
      settings: of each point, human-readable.
      slugs: of each point; empty for published curves.
      bpp: bits per pixel.
      scores: by metric; NaN where there is none.
      encoding_seconds, decoding_seconds: mean per image; empty for published curves.
      steps: of ours.
      description: for the results' files.
      side_shares: mean part of the files that is side information, 0 to 1; None in other codecs.
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


@dataclass(frozen=True)
class BdRate:
    """A Bjøntegaard delta rate, or why there is none.

    Attributes:
      curve, anchor, metric: what is compared, by what.
      percent: rate against the anchor's at equal quality: -20 saves a fifth. None: refused.
      overlap: the part of the two curves' common quality range that both cover, 0 to 1.
      reason: why it was refused, a sentence.
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
    """The curves, and for each metric the images that are in none of its averages.

    An image whose score is not a finite number for some point (too small for the metric; equal to the original, PSNR)
    is left out of that metric's average for every codec alike.
    """
    excluded: dict[str, list[str]] = {}
    for metric in metrics:
        if metric.name in measured.set_scores:
            continue
        excluded[metric.name] = [
            name
            for name, records in measured.records.items()
            if not all(math.isfinite(records[point.slug].scores[metric.name]) for point in points)
        ]
    curves: dict[str, list[RatePoint]] = {}
    for point in points:
        curves.setdefault(point.curve, []).append(point)

    def mean(point: RatePoint, value, left_out: Sequence[str] = ()) -> float:
        values = [value(records[point.slug]) for name, records in measured.records.items() if name not in left_out]
        return float(np.mean(values)) if values else math.nan

    def score(point: RatePoint, metric: str) -> float:
        if metric in measured.set_scores:
            return measured.set_scores[metric][point.slug]
        return mean(point, lambda record: record.scores[metric], excluded[metric])

    result = []
    for name, members in curves.items():
        members = sorted(members, key=lambda point: mean(point, lambda record: record.bpp))
        result.append(
            Curve(
                name=name,
                kind=members[0].kind,
                settings=[point.setting for point in members],
                slugs=[point.slug for point in members],
                bpp=[mean(point, lambda record: record.bpp) for point in members],
                scores={metric.name: [score(point, metric.name) for point in members] for metric in metrics},
                encoding_seconds=[mean(point, lambda record: record.encoding_seconds) for point in members],
                decoding_seconds=[mean(point, lambda record: record.decoding_seconds) for point in members],
                steps=members[0].steps,
                description=members[0].description,
                side_shares=[_side_share(point, mean) for point in members],
            )
        )
    return result, {metric: names for metric, names in excluded.items() if names}


def _side_share(point: RatePoint, mean) -> float | None:
    return None if point.side_share is None else mean(point, lambda record: record.side_share)


def bd_rate(curve: Curve, anchor: Curve, metric: MetricFacts, *, min_overlap: float = MIN_OVERLAP) -> BdRate:
    """The mean difference in rate at equal quality, over the qualities that both curves reach (Bjøntegaard 2001).

    Qualities of lower-is-better metrics are negated. Akima interpolation of log-rate over quality. Refused where the
    curves share less than `min_overlap` of the range of quality that they cover together.

    Raises:
      CdcError: the package bjontegaard is not installed.
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
    """Length of the intersection of two ranges over that of their union, 0 to 1."""
    union = max(max(a), max(b)) - min(min(a), min(b))
    shared = min(max(a), max(b)) - max(min(a), min(b))
    return max(0.0, shared) / union if union > 0 else 0.0


def bd_rates(
    curves: Sequence[Curve], anchor: Curve, metrics: Sequence[MetricFacts], *, min_overlap: float = MIN_OVERLAP
) -> list[BdRate]:
    """Every other curve against the anchor by every metric that both have."""
    return [
        bd_rate(curve, anchor, metric, min_overlap=min_overlap)
        for metric in metrics
        for curve in curves
        if curve.name != anchor.name and metric.name in curve.scores and metric.name in anchor.scores
    ]


def _points(curve: Curve, metric: str, sign: int):
    pairs = sorted((r, sign * s) for r, s in zip(curve.bpp, curve.scores[metric], strict=True) if math.isfinite(s))
    return np.array([rate for rate, _ in pairs]), np.array([score for _, score in pairs])
