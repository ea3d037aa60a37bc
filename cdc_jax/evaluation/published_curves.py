"""Rate–distortion curves from the literature, read from a CSV file, to compare ours with.

Only curves on the same data set and with the same definition of a metric are used. The columns are source, codec,
dataset, bpp, and scores: `psnr` (over RGB, in dB), `ms_ssim` (over RGB), `dists`, `fid`, `lpips_alex` and `lpips_vgg`.
An empty cell is a missing score. A column `lpips` does not say which network was used, and their scales differ. It
counts as `lpips-alex` for sources that are known to use AlexNet, and is ignored for others.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
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
# Sources, by the start of their names, whose column `lpips` is LPIPS-Alex v0.1.
_ALEX_SOURCES = ("tfc models/hific", "NeuralCompression illm")
# Curves to draw if no codecs are named, since all of them would be too many: start of the source's name, codec.
_DEFAULT_CURVES = (
    ("tfc models/hific", "hific"),
    ("NeuralCompression illm", "ms-illm"),
    ("CompressAI", "vtm"),
    ("CompressAI", "bpg_444_x265_ycbcr"),
    ("tensorflow/compression", "balle-2018-iclr-opt-mse"),
)
_KODAK = {f"kodim{number:02}" for number in range(1, 25)}


def data_set_of(names: Sequence[str]) -> str | None:
    """The name of the data set that consists of exactly these images ("kodak"); None if it is unknown."""
    return "kodak" if len(names) == 24 and {Path(name).stem.lower() for name in names} == _KODAK else None


def load_published(
    path: str | Path, *, data_set: str, metrics: Sequence[str], codecs: Sequence[str] | None = None
) -> list[Curve]:
    """The published curves on one data set, with the scores that are defined like one of our metrics.

    Args:
      path: the CSV file.
      data_set: the data set's name in the column `dataset`.
      metrics: names of our metrics.
      codecs: names in the column `codec`, in upper or lower case; None: a short list, or all if the file has none of
        these.

    Raises:
      ConfigError: the file cannot be read or lacks a column, or a codec is not in it.
    """
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _chosen_rows(path, codecs):
        if row["dataset"] == data_set:
            groups.setdefault((_codec(row), row["source"]), []).append(row)
    sources = Counter(codec for codec, _ in groups)
    curves = []
    for (codec, source), rows in groups.items():
        points = sorted(((_value(row["bpp"]), _scores(row, metrics)) for row in rows), key=lambda point: point[0])
        points = [(bpp, scores) for bpp, scores in points if math.isfinite(bpp) and scores]
        names = [name for name in metrics if any(name in scores for _, scores in points)]
        if not names:
            continue
        curve = Curve(
            name=codec if sources[codec] == 1 else f"{codec} ({source})",
            kind="published",
            settings=[""] * len(points),
            bpp=[bpp for bpp, _ in points],
            scores={name: [scores.get(name, math.nan) for _, scores in points] for name in names},
            description=f"published: {source}, {data_set}",
        )
        curves.append(curve)
    return curves


def _chosen_rows(path: str | Path, codecs: Sequence[str] | None) -> list[dict[str, str]]:
    """The rows of these codecs; None: of the default ones, or all."""
    rows = _rows(path)
    if codecs is None:
        return [row for row in rows if _is_default(row)] or rows
    chosen = {name.lower() for name in codecs}
    unknown = chosen - {_codec(row).lower() for row in rows}
    if unknown:
        raise ConfigError(f"{path} has no codec {sorted(unknown)[0]!r}.")
    return [row for row in rows if _codec(row).lower() in chosen]


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
    """The codec's name without a point's number: some sources have `DiffEIC [1]`, `DiffEIC [2]`."""
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
