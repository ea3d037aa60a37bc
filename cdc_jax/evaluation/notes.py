"""The report's words: its title, what was evaluated, and what a reader must know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdc_jax.evaluation.curves import Curve
from cdc_jax.evaluation.measure import Measured
from cdc_jax.evaluation.settings import Settings

if TYPE_CHECKING:
    from cdc_jax.evaluation.evaluate import Evaluation


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def title(curves: Sequence[Curve]) -> str:
    """`CDC beside JPEG, WebP and AVIF`."""
    ours = dict.fromkeys(curve.name.rsplit(",", 1)[0] for curve in curves if curve.kind == "ours")
    others = [curve.name for curve in curves if curve.kind == "baseline"]
    return " beside ".join(_and(names) for names in (list(ours), others) if names)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summary(settings: Settings, data_set: str | None, measured: Measured, curves: Sequence[Curve]) -> str:
    """What was evaluated, in a sentence or two."""
    source = data_set.capitalize() if data_set else os.path.basename(os.path.abspath(settings.images))
    return (
        f"{source}: {_count(len(measured.records), 'image')}, {_count(len(curves), 'curve')}. Rates are the sizes "
        "of real files, headers included; scores are means over the images."
    )


def notes_of(evaluation: Evaluation, names: Sequence[str], lossless: bool) -> list[str]:
    """What a reader of the page must know; `names` are the images that it shows."""
    measured = evaluation.measured
    notes = [f"{name} is in no codec's average: {reason}" for name, reason in measured.left_out.items()]
    for metric, without in evaluation.excluded.items():
        shown = ", ".join(without[:5]) + (" and others" if len(without) > 5 else "")
        notes.append(f"{metric}: {shown} in no codec's average, as there is no finite score for every rate point.")
    notes += [f"{curve.name}: {curve.description}." for curve in evaluation.curves]
    notes += [f"{curve.name} (dashed) is {curve.description}." for curve in evaluation.published]
    if any(cell.too_large for comparison in evaluation.same_size for cell in comparison.cells):
        notes.append(
            "* For some images even the codec's smallest file is larger than the target; it stands in, and counts as "
            "no win."
        )
    notes.append("Times are of single calls on this machine, bytes to pixels, without compilation.")
    if len(names) < len(measured.records):
        notes.append(f"{len(names)} of {len(measured.records)} images are shown; the averages are over all.")
    if not lossless:
        notes.append("To keep this page small, originals and our images are shown as WebP of quality 95.")
    return notes
