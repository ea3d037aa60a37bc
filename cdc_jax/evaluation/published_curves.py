"""Curves from the literature, read from a CSV, for plots: only where data set and metric are the same as ours.

Columns: source, codec, dataset, bpp, and scores; an empty cell is no score. `psnr` is PSNR over RGB in dB, `ms_ssim`
MS-SSIM over RGB, `dists`, `fid`. `lpips` does not name the network, and the two kinds are different scales: it counts
as `lpips-alex` where the source is known to use AlexNet, else it is left out. A file of one's own names it in the
column's name, `lpips_alex` or `lpips_vgg`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

from cdc_jax.errors import ConfigError, reason_of
from cdc_jax.evaluation.curves import Curve

_COLUMNS = {
    "psnr": "psnr-rgb",
    "ms_ssim": "ms-ssim-rgb",
    "dists": "dists",
    "fid": "fid",
    "lpips_alex": "lpips-alex",
    "lpips_vgg": "lpips-vgg",
}
_NEEDED = ("source", "codec", "dataset", "bpp")
# Sources whose column `lpips` is LPIPS-Alex v0.1, by the start of their names.
_ALEX_SOURCES = ("tfc models/hific", "NeuralCompression illm")
# What is drawn unless codecs are named (a plot of a hundred curves shows nothing): the start of a source, the codec.
_DEFAULT_CURVES = (
    ("tfc models/hific", "hific"),
    ("NeuralCompression illm", "ms-illm"),
    ("CompressAI", "vtm"),
    ("CompressAI", "bpg_444_x265_ycbcr"),
    ("tensorflow/compression", "balle-2018-iclr-opt-mse"),
)
_KODAK = {f"kodim{number:02}" for number in range(1, 25)}


def data_set_of(names: Sequence[str]) -> str | None:
    """The data set that these images, all of them, are: "kodak", or None."""
    return "kodak" if len(names) == 24 and {Path(name).stem.lower() for name in names} == _KODAK else None


def load_published(
    path: str | Path, *, data_set: str, metrics: Sequence[str], codecs: Sequence[str] | None = None
) -> list[Curve]:
    """The published curves for one data set, with those scores alone whose definition is that of one of our metrics.

    Args:
      path: the CSV.
      data_set: as in its column `dataset`.
      metrics: names of ours.
      codecs: names in its column `codec`, upper and lower case alike; None: a short list, or all where the file has
        none of that.

    Raises:
      ConfigError: the file cannot be read or lacks a column, or a codec is not in it.
    """
    rows = _rows(path)
    if codecs is not None:
        named = {name.lower() for name in codecs}
        unknown = named - {_codec(row).lower() for row in rows}
        if unknown:
            raise ConfigError(f"{path} has no codec {sorted(unknown)[0]!r}.")
        rows = [row for row in rows if _codec(row).lower() in named]
    else:
        rows = [row for row in rows if _is_default(row)] or rows
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["dataset"] == data_set:
            groups.setdefault((_codec(row), row["source"]), []).append(row)
    curves = []
    for (codec, source), members in groups.items():
        points = sorted(((_value(row["bpp"]), _scores(row, metrics)) for row in members), key=lambda point: point[0])
        points = [(bpp, scores) for bpp, scores in points if math.isfinite(bpp) and scores]
        names = [name for name in metrics if any(name in scores for _, scores in points)]
        if names:
            curves.append(
                Curve(
                    name=codec if len([1 for other, _ in groups if other == codec]) == 1 else f"{codec} ({source})",
                    kind="published",
                    settings=[""] * len(points),
                    bpp=[bpp for bpp, _ in points],
                    scores={name: [scores.get(name, math.nan) for _, scores in points] for name in names},
                    description=f"published: {source}, {data_set}",
                )
            )
    return curves


def _rows(path: str | Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {reason_of(error)}.") from None
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"{path} has no column {missing[0]!r}: it needs {', '.join(_NEEDED)} and scores.")
    return rows


def _codec(row: dict[str, str]) -> str:
    """Some sources number a curve's points: `DiffEIC [1]`, `DiffEIC [2]`."""
    return re.sub(r" \[[^\]]*\]$", "", row["codec"] or "")


def _is_default(row: dict[str, str]) -> bool:
    return any(row["source"].startswith(source) and _codec(row).lower() == codec for source, codec in _DEFAULT_CURVES)


def _scores(row: dict[str, str], metrics: Sequence[str]) -> dict[str, float]:
    columns = dict(_COLUMNS)
    if row["source"].startswith(_ALEX_SOURCES):
        columns["lpips"] = "lpips-alex"
    scores = {metric: _value(row.get(column)) for column, metric in columns.items() if metric in metrics}
    return {metric: score for metric, score in scores.items() if math.isfinite(score)}


def _value(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
