"""The result files of an evaluation: per image, per curve, and in CompressAI's format.

images.csv, images.json   one row per image and rate point
curves.csv                one row per rate point, averaged over the images
codecs/CURVE.json         a curve in CompressAI's results format, for its plotting tools
bd_rates.json             BD-rates against the anchor, or the reasons why there are none
same_size.json            comparisons at equal file sizes, if there are target sizes
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cdc_jax.evaluation.curves import BdRate, Curve
from cdc_jax.evaluation.measure import Measured
from cdc_jax.evaluation.rate_points import slug
from cdc_jax.evaluation.result_store import Record, finite
from cdc_jax.evaluation.same_size import SameSize
from cdc_jax.evaluation.scoring import MetricFacts
from cdc_jax.io.files import write_atomically


def write_results(
    folder: Path,
    measured: Measured,
    curves: Sequence[Curve],
    rates: Sequence[BdRate],
    same_size: Sequence[SameSize],
    metrics: Sequence[MetricFacts],
) -> None:
    """Writes the files that the module's docstring lists.

    Args:
      folder: the folder for the files; created if it does not exist.
      measured: every image's results.
      curves: averages of our codec and the baselines.
      rates: BD-rates.
      same_size: comparisons at equal file sizes.
      metrics: the metrics to write.

    Raises:
      OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [metric.name for metric in metrics]
    rows = [_image_row(record, names) for records in measured.records.values() for record in records.values()]
    _write_csv(folder / "images.csv", rows)
    _write_json(folder / "images.json", {"images": rows, "left_out": measured.left_out})
    _write_csv(folder / "curves.csv", [row for curve in curves for row in _curve_rows(curve)])
    _write_json(folder / "bd_rates.json", [dataclasses.asdict(rate) for rate in rates])
    if same_size:
        _write_json(folder / "same_size.json", [_comparison(comparison) for comparison in same_size])
    (folder / "codecs").mkdir(exist_ok=True)
    for curve in curves:
        _write_json(folder / "codecs" / f"{slug(curve.name)}.json", compressai_results(curve, metrics))


def compressai_results(curve: Curve, metrics: Sequence[MetricFacts]) -> dict[str, Any]:
    """A curve in CompressAI's format: name, description, and results as lists over rate points; times in seconds."""
    names = [metric.name for metric in metrics if metric.name in curve.scores]
    return {
        "name": curve.name,
        "description": curve.description,
        "results": {
            "bpp": curve.bpp,
            **{name: [finite(score) for score in curve.scores[name]] for name in names},
            "encoding_time": curve.encoding_seconds,
            "decoding_time": curve.decoding_seconds,
        },
    }


def _comparison(comparison: SameSize) -> dict[str, Any]:
    cells = [dataclasses.asdict(cell) for cell in comparison.cells]
    for cell in cells:
        cell["scores"] = {name: finite(score) for name, score in cell["scores"].items()}
    return {"ours": comparison.ours, "cells": cells}


def _image_row(record: Record, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "image": record.image,
        "codec": record.curve,
        "setting": record.setting,
        "quality": record.quality,
        "width": record.width,
        "height": record.height,
        "bytes": record.file_bytes,
        "bpp": record.bpp,
        "side_share": record.side_share,
        # A record may also have scores of an earlier evaluation's metrics.
        **{name: finite(record.scores[name]) for name in metrics if name in record.scores},
        "encoding_seconds": record.encoding_seconds,
        "decoding_seconds": record.decoding_seconds,
        "first_encoding_seconds": record.first_encoding_seconds,
        "first_decoding_seconds": record.first_decoding_seconds,
    }


def _curve_rows(curve: Curve) -> Iterable[dict[str, Any]]:
    for i, setting in enumerate(curve.settings):
        yield {
            "codec": curve.name,
            "setting": setting,
            "bpp": curve.bpp[i],
            "side_share": curve.side_shares[i],
            **{name: finite(scores[i]) for name, scores in curve.scores.items()},
            **{f"{name}_interval": finite(widths[i]) for name, widths in curve.intervals.items()},
            "encoding_seconds": curve.encoding_seconds[i],
            "decoding_seconds": curve.decoding_seconds[i],
        }


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
