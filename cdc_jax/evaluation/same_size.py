"""Comparison of codecs at equal file sizes: for each target, means over images, and the number of our codec's wins.

If a codec's smallest file of an image is larger than the target, that file is used in the codec's means. On such an
image, our codec cannot win against it, since the sizes differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cdc_jax.evaluation.measure import Measured
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.result_store import Record
from cdc_jax.evaluation.scoring import MetricFacts


@dataclass
class Cell:
    """One codec's files at one target size.

    Attributes:
      codec: name of the codec's curve.
      kind: "ours" or "baseline".
      target_bpp: largest allowed bits per pixel.
      images: number of images.
      bpp: mean bits per pixel of the files.
      too_large: number of images whose smallest file is larger than the target.
      scores: mean scores by metric, over the images with a finite score for every codec.
      wins: number of images on which our codec is better, by metric; empty for our codec.
      compared: number of images for which both codecs have a score, by metric; empty for our codec.
    """

    codec: str
    kind: str
    target_bpp: float
    images: int
    bpp: float
    too_large: int
    scores: dict[str, float]
    wins: dict[str, int] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)


@dataclass
class SameSize:
    """Our codec at one step count, compared with the others.

    Attributes:
      ours: name of our curve; None if only baselines were measured.
      cells: sorted by target, smallest first; ours comes before the others.
    """

    ours: str | None
    cells: list[Cell]


def compare_at_same_size(
    measured: Measured, points: Sequence[RatePoint], metrics: Sequence[MetricFacts]
) -> list[SameSize]:
    """Compares the codecs at equal file sizes, once for each of our curves; [] if there are no target sizes."""
    points = [point for point in points if point.target_bpp is not None]
    ours = list(dict.fromkeys(point.curve for point in points if point.kind == "ours"))
    metrics = [metric for metric in metrics if metric.name not in measured.set_scores]
    return [
        SameSize(name, _cells(measured, [p for p in points if p.kind != "ours" or p.curve == name], metrics))
        for name in (ours or [None] * bool(points))
    ]


def _cells(measured: Measured, points: Sequence[RatePoint], metrics: Sequence[MetricFacts]) -> list[Cell]:
    cells = []
    for target in sorted({point.target_bpp for point in points}):
        members = sorted((p for p in points if p.target_bpp == target), key=lambda point: point.kind != "ours")
        columns = {point.slug: [records[point.slug] for records in measured.records.values()] for point in members}
        usable = {
            metric.name: [
                i
                for i in range(len(measured.records))
                if all(math.isfinite(records[i].scores[metric.name]) for records in columns.values())
            ]
            for metric in metrics
        }
        for point in members:
            cells.append(_cell(point, columns[point.slug], usable))
            if members[0].kind == "ours" and point is not members[0]:
                _count_wins(cells[-1], columns[members[0].slug], columns[point.slug], metrics)
    return cells


def _cell(point: RatePoint, records: Sequence[Record], usable: dict[str, list[int]]) -> Cell:
    def mean(metric: str) -> float:
        return float(np.mean([records[i].scores[metric] for i in usable[metric]])) if usable[metric] else math.nan

    return Cell(
        codec=point.curve,
        kind=point.kind,
        target_bpp=point.target_bpp,
        images=len(records),
        bpp=float(np.mean([record.bpp for record in records])),
        too_large=sum(not record.within_target for record in records),
        scores={metric: mean(metric) for metric in usable},
    )


def _count_wins(cell: Cell, ours: Sequence[Record], theirs: Sequence[Record], metrics: Sequence[MetricFacts]) -> None:
    """Fills in `cell.wins` and `cell.compared`."""
    for metric in metrics:
        sign = 1 if metric.higher_is_better else -1
        pairs = [(a.scores[metric.name], b.scores[metric.name]) for a, b in zip(ours, theirs, strict=True)]
        # Infinite scores (PSNR of an exact copy) can be compared, missing ones (NaN) cannot.
        compared = [not (math.isnan(a) or math.isnan(b)) for a, b in pairs]
        fair = [a.within_target and b.within_target for a, b in zip(ours, theirs, strict=True)]
        better = [sign * a > sign * b for a, b in pairs]
        cell.compared[metric.name] = sum(compared)
        cell.wins[metric.name] = sum(all(facts) for facts in zip(compared, fair, better, strict=True))
