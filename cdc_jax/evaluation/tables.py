"""The report's tables, as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from cdc_jax.evaluation.curves import BdRate, Curve
from cdc_jax.evaluation.same_size import Cell, SameSize
from cdc_jax.evaluation.scoring import MetricFacts


def number(value: float, metric: str) -> str:
    """A score, rounded to its significant digits; "–" if it is missing."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    digits = 2 if metric.startswith(("psnr", "fid", "fd-")) else 4
    return f"{value:.{digits}f}"


def same_size(comparisons: Sequence[SameSize], metrics: Sequence[MetricFacts]) -> str:
    """A table per curve of ours: for each target size, the codecs' scores, and on how many images ours is better."""
    parts = []
    for comparison in comparisons:
        shown = [metric for metric in metrics if metric.name in comparison.cells[0].scores]
        head = "".join(f"<th>{escape(m.label)} {'↑' if m.higher_is_better else '↓'}</th>" for m in shown)
        heading = "Files of the same size"
        if comparison.ours is not None:
            heading = f"{comparison.ours} versus files of the same size (in brackets: images on which it is better)"
        rows = "".join(_same_size_row(cell, shown) for cell in comparison.cells)
        parts.append(
            f'<h3>{escape(heading)}</h3><div class="scroll" tabindex="0" role="region" aria-label="Same size"><table>'
            f'<thead><tr><th class="text">Target</th><th class="text">Codec</th><th>Bits per pixel</th>{head}</tr>'
            f"</thead><tbody>{rows}</tbody></table></div>"
        )
    return "".join(parts)


def _same_size_row(cell: Cell, metrics: Sequence[MetricFacts]) -> str:
    def score(name: str) -> str:
        shown = number(cell.scores[name], name)
        return f"{shown} ({cell.wins[name]} of {cell.compared[name]})" if name in cell.wins else shown

    mark = "*" if cell.too_large else ""
    cells = [f"{cell.bpp:.4f}{mark}", *(score(metric.name) for metric in metrics)]
    return (
        f'<tr class="{cell.kind}"><td class="text">{cell.target_bpp:g}</td><th scope="row">{escape(cell.codec)}</th>'
        + "".join(f"<td>{text}</td>" for text in cells)
        + "</tr>"
    )


def curves(members: Sequence[Curve], metrics: Sequence[MetricFacts]) -> str:
    """A table of every curve's points."""
    head = "".join(f"<th>{escape(m.label)} {'↑' if m.higher_is_better else '↓'}</th>" for m in metrics)
    rows = []
    for curve in members:
        for i, setting in enumerate(curve.settings):
            share = curve.side_shares[i]
            cells = [f"{curve.bpp[i]:.4f}", "–" if share is None else f"{share:.1%}"]
            cells += [number(curve.scores[metric.name][i], metric.name) for metric in metrics]
            cells += [_seconds(curve.encoding_seconds[i]), _seconds(curve.decoding_seconds[i])]
            rows.append(
                f'<tr class="{curve.kind}"><th scope="row">{escape(curve.name)}</th>'
                f'<td class="text">{escape(setting)}</td>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
            )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Averages"><table><thead><tr>'
        f'<th class="text">Codec</th><th class="text">Setting</th><th>Bits per pixel</th>'
        f"<th>Side information</th>{head}"
        f"<th>Encoding</th><th>Decoding</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def rates(members: Sequence[BdRate], metrics: Sequence[MetricFacts]) -> str:
    """A table of BD-rates, or the reasons why there are none; "" without any."""
    if not members:
        return ""
    labels = {metric.name: metric.label for metric in metrics}
    rows = []
    for rate in members:
        result = f'<td class="refused">none: {escape(rate.reason)}</td>'
        if rate.percent is not None:
            result = f'<td class="text">{rate.percent:+.1f} %</td>'
        rows.append(
            f'<tr><th scope="row">{escape(rate.curve)}</th><td class="text">{escape(labels[rate.metric])}</td>'
            f"{result}<td>{rate.overlap:.0%}</td></tr>"
        )
    return (
        f"<h3>Rate against {escape(members[0].anchor)} at equal quality (BD-rate; negative saves)</h3>"
        '<div class="scroll" tabindex="0" role="region" aria-label="BD-rates"><table><thead><tr><th class="text">Codec'
        '</th><th class="text">By</th><th class="text">BD-rate</th><th>Overlap</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"
