"""Plots: rate against distortion, and quality against step count and decoding time, as PNG and SVG.

The report inlines the SVG.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from cdc_jax.errors import CdcError
from cdc_jax.evaluation.curves import Curve
from cdc_jax.evaluation.scoring import MetricFacts
from cdc_jax.io.files import write_atomically

# The color of text and axes. The report replaces it with the page's text color.
INK = "#1b1d21"
_GRID = "#8a8f9840"
# Colors of medium brightness, visible on light and dark backgrounds. Our curves have warm colors.
_OURS = ("#d9480f", "#e8912d", "#d1345b", "#c65fa0", "#a8562c", "#caa21c", "#e0567a", "#8f4a8f")
_BASELINES = ("#2b7fd0", "#2f9e57", "#8763d6", "#12a0b4", "#6f7f92", "#5367d6")
_BASELINE_MARKERS = "sDvPX*"
_PUBLISHED = "#7c828c"
_RATE_MARGIN = 1.25  # published curves are drawn up to this multiple of the largest measured rate


def draw_plots(
    folder: Path, curves: Sequence[Curve], published: Sequence[Curve], metrics: Sequence[MetricFacts]
) -> dict[str, str]:
    """Writes the plots `rd-METRIC` and, if there are several step counts, `steps-METRIC` and `seconds-METRIC`.

    Args:
      folder: the folder for the files.
      curves: averages of our codec and the baselines.
      published: published curves.
      metrics: the metrics to plot.

    Returns:
      The SVG text of each plot, with a transparent background, by name.

    Raises:
      CdcError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise CdcError("Plots need matplotlib: pip install '.[eval]'.") from None
    folder.mkdir(parents=True, exist_ok=True)
    colors = _colors(curves)
    drawn = {}
    style = {"svg.fonttype": "none", "svg.hashsalt": "cdc", "font.size": 10, "font.family": "sans-serif"}
    style |= {"text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    with matplotlib.rc_context(style):
        for metric in metrics:
            for kind, draw in (("rd", _draw_rates), ("steps", _draw_steps), ("seconds", _draw_seconds)):
                name = f"{kind}-{metric.name}"
                figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
                if draw(axes, curves, published, metric, colors):
                    drawn[name] = _save(figure, folder / name)
                pyplot.close(figure)
    return drawn


def _colors(curves: Sequence[Curve]) -> dict[str, str]:
    colors = {}
    for kind, palette in (("ours", _OURS), ("baseline", _BASELINES)):
        names = [curve.name for curve in curves if curve.kind == kind]
        colors.update({name: palette[i % len(palette)] for i, name in enumerate(names)})
    return colors


def _draw_rates(axes, curves, published, metric: MetricFacts, colors) -> bool:
    """Score over rate, a line per curve. Returns whether there is any measured point."""
    rates = [bpp for curve in curves for bpp in curve.bpp]
    limit = max(rates, default=1.0) * _RATE_MARGIN
    for curve in published:
        _draw_published(axes, [pair for pair in _finite_points(curve, metric) if pair[0] <= limit], curve.name)
    drawn = False
    baselines = [curve.name for curve in curves if curve.kind == "baseline"]
    for curve in curves:
        pairs = _finite_points(curve, metric)
        if not pairs:
            continue
        drawn = True
        if curve.kind == "ours":
            style = {"marker": "o", "markersize": 6, "linewidth": 2, "zorder": 3}
        else:
            marker = _BASELINE_MARKERS[baselines.index(curve.name) % len(_BASELINE_MARKERS)]
            style = {"marker": marker, "markersize": 4.5, "linewidth": 1.5, "zorder": 2}
        axes.plot(*zip(*pairs, strict=True), color=colors[curve.name], label=curve.name, **style)
    axes.set_xlabel("rate (bits per pixel of the file)")
    axes.set_ylabel(_axis_label(metric))
    axes.set_xlim(left=0)
    _style_axes(axes)
    return drawn


def _finite_points(curve: Curve, metric: MetricFacts) -> list[tuple[float, float]]:
    """(bits per pixel, score) of each point with a finite score."""
    scores = curve.scores.get(metric.name, [math.nan] * len(curve.bpp))
    return [(bpp, score) for bpp, score in zip(curve.bpp, scores, strict=True) if math.isfinite(score)]


def _draw_published(axes, pairs: Sequence[tuple[float, float]], name: str) -> None:
    """A thin dashed line with its name at the end."""
    if not pairs:
        return
    line = {"color": _PUBLISHED, "linewidth": 1, "marker": "^", "markersize": 3}
    axes.plot(*zip(*pairs, strict=True), "--", zorder=1, **line)
    text = {"fontsize": 7.5, "color": _PUBLISHED, "annotation_clip": True}
    axes.annotate(name, pairs[-1], xytext=(4, 2), textcoords="offset points", **text)


class _Decode(NamedTuple):
    """One rate point of our codec at one step count: its mean seconds, score and rate."""

    steps: int
    seconds: float
    score: float
    bpp: float


def _decodes(curves: Sequence[Curve], metric: MetricFacts) -> dict[str, list[_Decode]]:
    """The decodes of each rate point that was decoded at several step counts, by label, fewest steps first."""
    points: dict[tuple[str, str], list[_Decode]] = {}
    for curve in curves:
        if curve.kind != "ours":
            continue
        family = curve.name.rsplit(",", 1)[0]
        columns = curve.settings, curve.decoding_seconds, curve.scores[metric.name], curve.bpp
        for setting, *values in zip(*columns, strict=True):
            decode = _Decode(curve.steps, *values)
            if math.isfinite(decode.score):
                points.setdefault((family, setting), []).append(decode)
    return {
        f"{family}, {setting} ({decodes[0].bpp:.3f} bpp)": sorted(decodes)
        for (family, setting), decodes in points.items()
        if len(decodes) > 1
    }


def _draw_steps(axes, curves, published, metric: MetricFacts, colors) -> bool:
    """Score over step count, a line per rate point of our codec. Returns whether there is any line."""
    lines = _draw_decodes(axes, curves, metric, "steps", "diffusion steps")
    if not lines:
        return False
    ticks = sorted({decode.steps for decodes in lines for decode in decodes})
    if ticks[0] == 0:  # the preview
        axes.set_xscale("symlog", linthresh=1)
    else:
        axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    return True


def _draw_seconds(axes, curves, published, metric: MetricFacts, colors) -> bool:
    """Score over decoding time, with the step counts beside the points. Returns whether there is any line."""
    lines = _draw_decodes(
        axes, curves, metric, "seconds", "decoding time (seconds per image; numbers: diffusion steps)"
    )
    for i, decodes in enumerate(lines):
        for decode in decodes:
            text = {"fontsize": 7.5, "color": _OURS[i % len(_OURS)]}
            offset = {"xytext": (4, 4), "textcoords": "offset points"}
            axes.annotate(str(decode.steps), (decode.seconds, decode.score), **offset, **text)
    axes.set_xscale("log")
    return bool(lines)


def _draw_decodes(
    axes, curves: Sequence[Curve], metric: MetricFacts, field: str, label: str
) -> Collection[list[_Decode]]:
    """Draws a line of score over a field of `_Decode` for each rate point. Returns the decodes of each line."""
    lines = _decodes(curves, metric)
    for i, (name, decodes) in enumerate(lines.items()):
        points = [(getattr(decode, field), decode.score) for decode in decodes]
        axes.plot(*zip(*points, strict=True), color=_OURS[i % len(_OURS)], marker="o", linewidth=2, label=name)
    axes.set_xlabel(label)
    axes.set_ylabel(_axis_label(metric))
    _style_axes(axes)
    return lines.values()


def _axis_label(metric: MetricFacts) -> str:
    return f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"


def _style_axes(axes) -> None:
    axes.grid(True, color=_GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8.5)


def _save(figure, path: Path) -> str:
    """Writes PNG and SVG. Returns the text of an SVG with a transparent background."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=160)
    write_atomically(path.with_name(path.name + ".png"), image.getvalue())
    drawings = []
    for transparent in (False, True):
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
        drawings.append(text.getvalue())
    write_atomically(path.with_name(path.name + ".svg"), drawings[0].encode())
    return drawings[1]
