"""`cdc evaluate`, from its settings to the report: a sequence of steps, each of which is defined elsewhere."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cdc_jax.codec.bundle_folder import shipped_bundle
from cdc_jax.errors import CdcError, ConfigError, ImageError
from cdc_jax.evaluation.baselines import baseline_points
from cdc_jax.evaluation.cdc import OurSettings, our_points
from cdc_jax.evaluation.curves import BdRate, Curve, average, bd_rates
from cdc_jax.evaluation.measure import Measured, find_images, measure
from cdc_jax.evaluation.notes import notes_of, summary, title
from cdc_jax.evaluation.plots import draw_plots
from cdc_jax.evaluation.published_curves import data_set_of, load_published
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.report import ReportFacts, write_report
from cdc_jax.evaluation.report_images import chosen_images, images_data, is_lossless
from cdc_jax.evaluation.result_store import Store
from cdc_jax.evaluation.results import write_results
from cdc_jax.evaluation.same_size import SameSize, compare_at_same_size
from cdc_jax.evaluation.scoring import MetricFacts, Metrics
from cdc_jax.evaluation.settings import Settings
from cdc_jax.io.folder_lock import exclusive
from cdc_jax.io.images import Image, load_image

REPORT = "report.html"
SAMPLE_IMAGES = 4  # number of images that determine the baselines' default qualities


@dataclasses.dataclass
class Evaluation:
    """The results of an evaluation.

    Attributes:
      measured: every image's results.
      curves: averages over images, of our codec and the baselines.
      published: published curves to compare them with.
      rates: BD-rates against the anchor.
      same_size: comparisons at equal file sizes, one for each of our curves.
      excluded: for each metric, the images that are left out of its averages.
      report: path of the report.
    """

    measured: Measured
    curves: list[Curve]
    published: list[Curve]
    rates: list[BdRate]
    same_size: list[SameSize]
    excluded: dict[str, list[str]]
    report: Path


def evaluate(
    settings: Settings,
    *,
    load_codec: Callable | None = None,
    metric_loaders: Any = None,
    log: Callable[[str], None] = lambda line: None,
    progress_bar: Callable[[int], Any] | None = None,
) -> Evaluation:
    """Measures codecs on images, and writes results, plots and a report. Existing results are reused.

    Args:
      settings: what to evaluate.
      load_codec, metric_loaders: replacements for `cdc_jax.load_codec` and `metrics.registry`, for tests.
      log: called with each line that the user should see.
      progress_bar: called with the total; returns a context manager with a method `update(n)`, like tqdm's.

    Returns:
      The results.

    Raises:
      ConfigError: the settings are invalid; nothing was measured.
      CdcError: a package, weights or data are missing, or no image could be evaluated; the message states the cause.
      OSError: results cannot be written.
    """
    _check_packages()
    images = find_images(settings.images, out=settings.out)
    out = Path(settings.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: This is a file, where a folder should go.")
    points = _points(settings, images, load_codec, log)
    metrics = Metrics(settings.metric_names, fid_weights=settings.fid_weights, loaders=metric_loaders)
    data_set = settings.data_set or data_set_of(list(images))
    published, remarks = _published(settings, data_set, [facts.name for facts in metrics.facts])
    anchor = _anchor_name(settings.anchor, points, published)

    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out, "that evaluation"):
        store = Store(out)
        with _bar(progress_bar, len(images) * len(points)) as bar:
            options = {"max_pixels": settings.max_pixels, "log": log, "progress": bar.update}
            measured = measure(images, points, metrics, store, **options)
        if published and measured.left_out and settings.data_set is None:
            published, remarks = [], ["Published curves are not drawn: images of the data set were left out."]
        for remark in remarks:
            log(remark)
        evaluation = _compare(settings, measured, points, published, anchor, metrics.facts)
        write_results(out, measured, evaluation.curves, evaluation.rates, evaluation.same_size, metrics.facts)
        _report(settings, evaluation, points, metrics.facts, store, data_set, remarks)
    return evaluation


def _check_packages() -> None:
    """Raises CdcError if a package is missing, rather than after hours of decoding."""
    for package in ("matplotlib", "bjontegaard"):
        if importlib.util.find_spec(package) is None:
            raise CdcError(f"An evaluation needs the package {package}: pip install '.[eval]'.")


def _compare(
    settings: Settings,
    measured: Measured,
    points: Sequence[RatePoint],
    published: list[Curve],
    anchor: str | None,
    metrics: Sequence[MetricFacts],
) -> Evaluation:
    curves, excluded = average(measured, points, metrics)
    every, rates = [*curves, *published], []
    if anchor:
        reference = next(curve for curve in every if curve.name == anchor)
        rates = bd_rates(every, reference, metrics, min_overlap=settings.min_overlap)
    same_size = compare_at_same_size(measured, points, metrics)
    return Evaluation(measured, curves, published, rates, same_size, excluded, Path(settings.out) / REPORT)


def _report(
    settings: Settings,
    evaluation: Evaluation,
    points: Sequence[RatePoint],
    metrics: Sequence[MetricFacts],
    store: Store,
    data_set: str | None,
    remarks: Sequence[str],
) -> None:
    measured, curves = evaluation.measured, evaluation.curves
    drawn = draw_plots(Path(settings.out) / "plots", curves, evaluation.published, metrics)
    names = chosen_images(list(measured.records), settings.report_images)
    lossless = is_lossless(measured, names, points)
    facts = ReportFacts(
        title=title(curves),
        summary=summary(settings, data_set, measured, curves),
        curves=curves,
        rates=evaluation.rates,
        same_size=evaluation.same_size,
        metrics=metrics,
        plots=drawn,
        images=images_data(measured, points, metrics, store, names, lossless=lossless, max_pixels=settings.max_pixels),
        notes=[*notes_of(evaluation, names, lossless), *remarks],
    )
    write_report(evaluation.report, facts)


def _points(
    settings: Settings, images: Mapping[str, Path], load_codec: Callable | None, log: Callable[[str], None]
) -> list[RatePoint]:
    families, names = _families(settings, log)
    if load_codec is None and families:
        from cdc_jax.codec.codec import load_codec
    ours = our_points(
        families,
        OurSettings(settings.steps, settings.seed, settings.gamma, settings.qualities, settings.targets_bpp),
        names=names,
        load_codec=load_codec,
        max_pixels=settings.max_pixels,
    )
    baselines = baseline_points(
        settings.codecs,
        settings.codec_qualities,
        targets_bpp=settings.targets_bpp,
        samples=functools.cache(lambda: _samples(images, settings.max_pixels)),
    )
    # Group the points by curve, since a curve's points are scored together.
    curves: dict[str, list[RatePoint]] = {}
    for point in [*ours, *baselines]:
        curves.setdefault(point.curve, []).append(point)
    points = [point for members in curves.values() for point in members]
    if not points:
        raise ConfigError("There is nothing to evaluate: give --model, --released or --codecs.")
    return points


def _families(settings: Settings, log: Callable[[str], None]) -> tuple[list[list[str]], list[str] | None]:
    """The bundles of each family, and the families' names; None: names derived from the bundles' names."""
    models = settings.models
    if models is None:
        models = [] if settings.released is not None else [[str(shipped_bundle())]]
    families = [list(family) for family in models if family]
    if settings.released is None:
        return families, None
    from cdc_jax.evaluation.released import import_released

    imported, names = import_released(settings.released, Path(settings.out) / "bundles", log=log)
    names = [*(f"CDC {number}" for number in range(1, len(families) + 1)), *names]
    return families + imported, names


def _samples(images: Mapping[str, Path], max_pixels: int) -> list[Image]:
    """A few images, spread over the data set; unreadable ones are skipped."""
    samples = []
    for name in chosen_images(list(images), SAMPLE_IMAGES):
        try:
            samples.append(load_image(images[name], max_pixels=max_pixels)[0])
        except (ImageError, OSError):
            continue  # `measure` reports it
    return samples


def _published(settings: Settings, data_set: str | None, metrics: Sequence[str]) -> tuple[list[Curve], list[str]]:
    if settings.published is None:
        return [], []
    if data_set is None:
        return [], ["Published curves are not drawn: the images are no known data set. Name it with --data-set."]
    curves = load_published(settings.published, data_set=data_set, metrics=metrics, codecs=settings.published_codecs)
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
