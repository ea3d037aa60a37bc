"""Codecs at files of the same size: for each target, means over the images, and on how many of them ours is better.

An image whose smallest file by a codec is larger than the target is in that codec's means nevertheless, and counts as
no win against it: what stands in is another size's result.
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
    """One codec's files within one target.

    Attributes:
      codec: name of its curve.
      kind: "ours" or "baseline".
      target_bpp: bits per pixel allowed.
      images: number of images.
      bpp: mean of the files.
      too_large: number of images of which even the smallest file is larger.
      scores: mean by metric, over the images that have a finite score for every codec.
      wins: by metric, the number of images on which ours is better, out of `compared`; empty for ours.
      compared: by metric, the number of images with a finite score for both.
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
    """Our codec at one step count beside the others.

    Attributes:
      ours: name of our curve; None where only others were measured.
      cells: by target, smallest first; ours before the others.
    """

    ours: str | None
    cells: list[Cell]


def compare_at_same_size(
    measured: Measured, points: Sequence[RatePoint], metrics: Sequence[MetricFacts]
) -> list[SameSize]:
    """A comparison for each of our curves; none where no sizes were asked for."""
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
    """Fills in on how many images ours is better."""
    for metric in metrics:
        sign = 1 if metric.higher_is_better else -1
        pairs = [(a.scores[metric.name], b.scores[metric.name]) for a, b in zip(ours, theirs, strict=True)]
        # Infinite scores (PSNR of an exact copy) compare like any other; missing ones do not.
        compared = [not (math.isnan(a) or math.isnan(b)) for a, b in pairs]
        fair = [a.within_target and b.within_target for a, b in zip(ours, theirs, strict=True)]
        better = [sign * a > sign * b for a, b in pairs]
        cell.compared[metric.name] = sum(compared)
        cell.wins[metric.name] = sum(all(facts) for facts in zip(compared, fair, better, strict=True))
