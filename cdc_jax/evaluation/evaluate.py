"""`cdc evaluate`, from its settings to the report: the order of things, and nothing else."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.evaluation.baselines import baseline_points
from cdc_jax.evaluation.cdc import our_points
from cdc_jax.evaluation.curves import BdRate, Curve, average, bd_rates
from cdc_jax.evaluation.measure import Measured, find_images, measure
from cdc_jax.evaluation.plots import draw_plots
from cdc_jax.evaluation.published_curves import data_set_of, load_published
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.report import ReportFacts, write_report
from cdc_jax.evaluation.report_images import chosen_images, images_data, is_lossless
from cdc_jax.evaluation.result_store import Store
from cdc_jax.evaluation.results import write_results
from cdc_jax.evaluation.scoring import Metrics
from cdc_jax.io.files import MAX_PIXELS

DEFAULT_METRICS = ("psnr-rgb", "ssim", "ms-ssim-rgb", "lpips-alex")
DEFAULT_CODECS = ("jpeg", "webp", "avif", "jxl")
REPORT = "report.html"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to evaluate.

    Attributes:
      images: a folder of images.
      out: the folder for everything that is written; finished results in it are used again.
      models: for each curve, its bundles.
      released: a folder of the authors' checkpoints, imported and evaluated beside `models`.
      steps: of our decoding; None: the paper's for each variant.
      seed, gamma: of our decoding's noise; gamma None: each bundle's own.
      metrics: names in `metrics.registry`.
      codecs: keys of `baselines.BASELINES`.
      qualities: of every baseline; None: each one's own sweep.
      anchor: the curve that BD-rates refer to; None: the first baseline.
      published: a CSV of published curves.
      published_codecs: which of them; None: a short list.
      data_set: the name of `images` in that CSV; None: found out, for Kodak.
      fid_weights: Inception weights for the metric fid.
      max_pixels: refuse larger images.
      report_images: at most this many images in the report; None: all.
    """

    images: str
    out: str
    models: Sequence[Sequence[str]] = ()
    released: str | None = None
    steps: Sequence[int] | None = None
    seed: int = 0
    gamma: float | None = None
    metrics: Sequence[str] = DEFAULT_METRICS
    codecs: Sequence[str] = DEFAULT_CODECS
    qualities: Sequence[int] | None = None
    anchor: str | None = None
    published: str | None = None
    published_codecs: Sequence[str] | None = None
    data_set: str | None = None
    fid_weights: str | None = None
    max_pixels: int = MAX_PIXELS
    report_images: int | None = 24


@dataclasses.dataclass
class Evaluation:
    """What came of it: the measurements, the averages, and where the report is."""

    measured: Measured
    curves: list[Curve]
    published: list[Curve]
    rates: list[BdRate]
    report: Path


def evaluate(
    settings: Settings,
    *,
    load_codec: Callable | None = None,
    metric_loaders: Any = None,
    log: Callable[[str], None] = lambda line: None,
    progress_bar: Callable[[int], Any] | None = None,
) -> Evaluation:
    """Measures everything that is not measured yet, and writes results, plots and report.

    Args:
      settings: what to do.
      load_codec, metric_loaders: in place of `cdc_jax.load_codec` and `metrics.registry`.
      log: called with what the user should know, one line at a time.
      progress_bar: from a total to a context manager with `update(n)`, as tqdm.

    Raises:
      ConfigError: the settings are invalid; nothing was measured.
      CdcError: something is missing or failed; the message names it.
      OSError: results cannot be written.
    """
    for package in ("matplotlib", "bjontegaard"):  # rather now than after hours of decoding
        if importlib.util.find_spec(package) is None:
            raise CdcError(f"An evaluation needs the package {package}: pip install '.[eval]'.")
    images = find_images(settings.images)
    out = Path(settings.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: This is a file, where a folder should go.")
    points = _points(settings, load_codec, log)
    metrics = Metrics(settings.metrics, fid_weights=settings.fid_weights, loaders=metric_loaders)
    data_set = settings.data_set or data_set_of(list(images))
    published, remarks = _published(settings, data_set, [facts.name for facts in metrics.facts])
    anchor = _anchor_name(settings.anchor, points, published)

    store = Store(out)
    total = len(images) * len(points)
    with _bar(progress_bar, total) as bar:
        measured = measure(
            images, points, metrics, store, max_pixels=settings.max_pixels, log=log, progress=bar.update
        )
    curves, excluded = average(measured, points, metrics.facts)
    if published and measured.left_out and settings.data_set is None:
        published, remarks = [], ["Published curves are not drawn: images of the data set were left out."]
    for remark in remarks:
        log(remark)
    every = [*curves, *published]
    rates = bd_rates(every, next(c for c in every if c.name == anchor), metrics.facts) if anchor else []
    write_results(out, measured, curves, rates, metrics.facts)
    drawn = draw_plots(out / "plots", curves, published, metrics.facts)

    names = chosen_images(list(measured.records), settings.report_images)
    lossless = is_lossless(measured, names, points)
    facts = ReportFacts(
        title=_title(curves),
        summary=_summary(settings, data_set, measured, curves),
        curves=curves,
        rates=rates,
        metrics=metrics.facts,
        plots=drawn,
        images=images_data(
            measured, points, metrics.facts, store, names, lossless=lossless, max_pixels=settings.max_pixels
        ),
        notes=[*_notes(measured, curves, published, excluded, names, lossless), *remarks],
    )
    write_report(out / REPORT, facts)
    return Evaluation(measured, curves, published, rates, out / REPORT)


def _points(settings: Settings, load_codec: Callable | None, log: Callable[[str], None]) -> list[RatePoint]:
    families, names = [list(family) for family in settings.models], None
    if load_codec is None and (families or settings.released is not None):
        from cdc_jax.codec.codec import load_codec
    if settings.released is not None:
        from cdc_jax.evaluation.released import import_released

        imported, names = import_released(settings.released, Path(settings.out) / "bundles", log=log)
        names = [*(f"CDC {number}" for number in range(1, len(families) + 1)), *names]
        families += imported
    ours = our_points(
        families,
        settings.steps,
        seed=settings.seed,
        gamma=settings.gamma,
        names=names,
        load_codec=load_codec,
        max_pixels=settings.max_pixels,
    )
    # Each curve's points in one piece: what is scored together.
    curves: dict[str, list[RatePoint]] = {}
    for point in [*ours, *baseline_points(settings.codecs, settings.qualities)]:
        curves.setdefault(point.curve, []).append(point)
    points = [point for members in curves.values() for point in members]
    if not points:
        raise ConfigError("There is nothing to evaluate: give --model, --released or --codecs.")
    return points


def _published(settings: Settings, data_set: str | None, metrics: Sequence[str]) -> tuple[list[Curve], list[str]]:
    if settings.published is None:
        return [], []
    if data_set is None:
        return [], ["Published curves are not drawn: the images are no data set that is known; --data-set names it."]
    curves = load_published(
        settings.published, data_set=data_set, metrics=metrics, codecs=settings.published_codecs
    )
    if not curves:
        return [], [f"Published curves are not drawn: {settings.published} has none for {data_set} and these metrics."]
    return curves, []


def _anchor_name(asked: str | None, points: Sequence[RatePoint], published: Sequence[Curve]) -> str | None:
    names = list(dict.fromkeys([*(point.curve for point in points), *(curve.name for curve in published)]))
    if asked is None:
        return next((point.curve for point in points if point.kind == "baseline"), None)
    for name in names:
        if asked.lower() in (name.lower(), name.lower().replace(" ", "")):
            return name
    for point in points:  # `jxl` for JPEG XL
        if asked.lower() == point.identity.get("codec") != "cdc":
            return point.curve
    raise ConfigError(f"There is no curve {asked!r} to be the anchor; there are {', '.join(names)}.")


class _NoBar:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def update(self, done: int) -> None:
        pass


def _bar(progress_bar: Callable[[int], Any] | None, total: int):
    return _NoBar() if progress_bar is None else progress_bar(total)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _title(curves: Sequence[Curve]) -> str:
    """`CDC beside JPEG, WebP and AVIF`."""
    ours = dict.fromkeys(curve.name.rsplit(",", 1)[0] for curve in curves if curve.kind == "ours")
    others = [curve.name for curve in curves if curve.kind == "baseline"]
    return " beside ".join(_and(names) for names in (list(ours), others) if names)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _summary(settings: Settings, data_set: str | None, measured: Measured, curves: Sequence[Curve]) -> str:
    source = data_set.capitalize() if data_set else os.path.basename(os.path.abspath(settings.images))
    return (
        f"{source}: {_count(len(measured.records), 'image')}, {_count(len(curves), 'curve')}. Rates are the sizes "
        "of real files, headers included; scores are means over the images."
    )


def _notes(
    measured: Measured,
    curves: Sequence[Curve],
    published: Sequence[Curve],
    excluded: dict[str, list[str]],
    names: Sequence[str],
    lossless: bool,
) -> list[str]:
    notes = [f"{name} is in no codec's average: {reason}" for name, reason in measured.left_out.items()]
    for metric, without in excluded.items():
        shown = ", ".join(without[:5]) + (" and others" if len(without) > 5 else "")
        notes.append(f"{metric}: {shown} in no codec's average, as there is no finite score for every rate point.")
    notes += [f"{curve.name}: {curve.description}." for curve in curves]
    notes += [f"{curve.name} (dashed) is {curve.description}." for curve in published]
    notes.append("Times are of single calls on this machine, bytes to pixels, without compilation.")
    if len(names) < len(measured.records):
        notes.append(f"{len(names)} of {len(measured.records)} images are shown; the averages are over all.")
    if not lossless:
        notes.append("To keep this page small, originals and our images are shown as WebP of quality 95.")
    return notes
