"""The report's text: its title, a summary, and notes."""

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
    """The report's title, such as "CDC versus JPEG, WebP and AVIF"."""
    ours = dict.fromkeys(curve.name.rsplit(",", 1)[0] for curve in curves if curve.kind == "ours")
    others = [curve.name for curve in curves if curve.kind == "baseline"]
    return " versus ".join(_and(names) for names in (list(ours), others) if names)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summary(settings: Settings, data_set: str | None, measured: Measured, curves: Sequence[Curve]) -> str:
    """One or two sentences on what was evaluated."""
    source = data_set.capitalize() if data_set else os.path.basename(os.path.abspath(settings.images))
    return (
        f"{source}: {_count(len(measured.records), 'image')}, {_count(len(curves), 'curve')}. Rates are the sizes "
        "of real files, including headers; scores are means over the images."
    )


def notes_of(evaluation: Evaluation, names: Sequence[str], lossless: bool) -> list[str]:
    """The report's notes.

    Args:
      evaluation: the results.
      names: the images that the report shows.
      lossless: whether it shows them losslessly.
    """
    measured = evaluation.measured
    notes = [f"{name} is left out of every codec's average: {reason}" for name, reason in measured.left_out.items()]
    for metric, without in evaluation.excluded.items():
        shown = ", ".join(without[:5]) + (" and others" if len(without) > 5 else "")
        notes.append(f"{metric}: {shown} left out of every codec's average, for lack of a finite score at some point.")
    notes += [f"{curve.name}: {curve.description}." for curve in evaluation.curves]
    notes += [f"{curve.name} (dashed) is {curve.description}." for curve in evaluation.published]
    if any(cell.too_large for comparison in evaluation.same_size for cell in comparison.cells):
        notes.append(
            "* For some images, even the codec's smallest file is larger than the target. It is used in the averages, "
            "but never counts as a win."
        )
    notes.append("Times are those of single calls on this machine, from bytes to pixels, without compilation.")
    if len(names) < len(measured.records):
        notes.append(f"{len(names)} of {len(measured.records)} images are shown; the averages include all of them.")
    if not lossless:
        notes.append("To keep this page small, originals and our images are shown as WebP of quality 95.")
    return notes
