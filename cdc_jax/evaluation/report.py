"""The report: one self-contained HTML file, which loads nothing from the network.

`page/` holds its HTML, CSS and JavaScript; this module fills in the placeholders. `report_images` prepares the images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from cdc_jax.evaluation import tables
from cdc_jax.evaluation.curves import BdRate, Curve
from cdc_jax.evaluation.plots import INK
from cdc_jax.evaluation.same_size import SameSize
from cdc_jax.evaluation.scoring import MetricFacts
from cdc_jax.io.files import write_atomically

_PLOTTED_OVER = {"rd": "rate", "steps": "diffusion steps", "seconds": "decoding time"}


@dataclass
class ReportFacts:
    """The content of the report.

    Attributes:
      title, summary: plain text.
      curves: averages of our codec and the baselines.
      rates: BD-rates.
      same_size: comparisons at equal file sizes.
      metrics: the metrics, in the order of the columns.
      plots: SVG text by name, from `draw_plots`.
      images: the images to show, from `report_images.images_data`.
      notes: plain text of each note.
    """

    title: str
    summary: str
    curves: Sequence[Curve]
    rates: Sequence[BdRate]
    same_size: Sequence[SameSize]
    metrics: Sequence[MetricFacts]
    plots: Mapping[str, str]
    images: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = field(default_factory=list)


def write_report(path: Path, facts: ReportFacts) -> None:
    """Writes the report to a file. Raises OSError if it cannot be written."""
    page = _part("page.html")
    parts = {
        "title": escape(facts.title),
        "summary": escape(facts.summary),
        "style": _part("style.css"),
        "script": _part("script.js"),
        "plots": "\n".join(_figure(name, svg, facts.metrics) for name, svg in facts.plots.items()),
        "tables": tables.same_size(facts.same_size, facts.metrics)
        + tables.curves(facts.curves, facts.metrics)
        + tables.rates(facts.rates, facts.metrics),
        "notes": '<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in facts.notes) + "</ul>",
        # "</script>" in a file's name would end the block
        "data": json.dumps({"images": facts.images}, ensure_ascii=False).replace("<", "\\u003c"),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], page)
    write_atomically(path, text.encode("utf-8"))


def _part(name: str) -> str:
    return (resources.files("cdc_jax.evaluation") / "page" / name).read_text("utf-8")


def _figure(name: str, svg: str, metrics: Sequence[MetricFacts]) -> str:
    kind, _, metric_name = name.partition("-")
    label = next((metric.label for metric in metrics if metric.name == metric_name), metric_name)
    caption = f"{label} over {_PLOTTED_OVER[kind]}"
    return (
        f'<figure id="plot-{escape(name)}"><figcaption>{escape(caption)}</figcaption>'
        f"{inline_svg(svg, name, caption)}</figure>"
    )


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """Turns the text of an SVG file into an element of an HTML page.

    Args:
      svg: the file's text, with text and axes in the color `INK`; they get the page's text color.
      prefix: prefix of all identifiers, which must be unique within the page.
      label: description for screen readers.
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = svg.replace(INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
