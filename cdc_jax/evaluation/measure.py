"""The evaluation loop: measures every image at every rate point.

The outer loop is over images, so that each original is read once and its features for every metric are computed once.
All points of a curve that have no score yet are scored in one call per metric. Results are stored on disk
(`result_store`) before the next curve begins.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cdc_jax.errors import CdcError, ConfigError, ImageError, reason_of
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.result_store import Record, Store
from cdc_jax.evaluation.scoring import Metrics, Scorer
from cdc_jax.io import image_folders
from cdc_jax.io.images import Image, load_image
from cdc_jax.version import __version__

Log = Callable[[str], None]


@dataclass
class Measured:
    """The measurements of an evaluation.

    Attributes:
      records: by image and slug; only images that were measured at every rate point.
      left_out: images that failed at some point and are left out of all averages, with the reason.
      set_scores: scores of metrics that compare sets of images, by metric and slug.
      images: path of every image in `records`, by name.
      sha256: hash of each of those files, by name.
    """

    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    set_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


def find_images(folder: str | Path, *, out: str | Path | None = None) -> dict[str, Path]:
    """Finds image files.

    Args:
      folder: a folder to search recursively, or one file.
      out: the folder of results; images inside it are skipped if it is inside `folder`.

    Returns:
      Paths of the files by name, which is the path relative to `folder`; sorted.

    Raises:
      ConfigError: there is no image, or both folders are the same.
    """
    folder = Path(folder)
    if folder.is_file():
        return {folder.name: folder}
    if not folder.is_dir():
        raise ConfigError(f"{folder}: There is no such folder of images.")
    if out is not None and Path(out).resolve() == folder.resolve():
        raise ConfigError(f"{folder}: The results would be among the images: choose another folder for --out.")
    names, _ = image_folders.find_images(folder)
    # Skip results inside the image folder, but not an image folder inside the results.
    own = None if out is None or folder.resolve() not in Path(out).resolve().parents else Path(out).resolve()
    files = {name: folder / name for name in names if own is None or own not in _parents(folder / name)}
    if not files:
        raise ConfigError(f"{folder}: There is no image in this folder.")
    return files


def _parents(path: Path) -> Sequence[Path]:
    return (path.parent.resolve() / path.name).parents


def measure(
    images: dict[str, Path],
    points: Sequence[RatePoint],
    metrics: Metrics,
    store: Store,
    *,
    max_pixels: int,
    log: Log = lambda line: None,
    progress: Callable[[int], Any] = lambda done: None,
) -> Measured:
    """Measures every rate point on every image, except for results that are already stored.

    Args:
      images: paths by name, from `find_images`.
      points: all rate points, grouped by curve, with unique slugs.
      metrics: the metrics to score.
      store: where results are stored.
      max_pixels: larger images are refused.
      log: called with a line for every image that fails.
      progress: called with the number of (image, point) pairs that have been finished since the last call.

    Raises:
      CdcError: every image failed.
    """
    measured = Measured()
    warm: set[Hashable] = set()
    for name, path in images.items():
        done = 0
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            original, _ = load_image(path, max_pixels=max_pixels)
            run = _ImageRun(name, original, digest, metrics, store, warm)
            records = {}
            for _, group in itertools.groupby(points, key=lambda point: point.curve):
                group = list(group)
                for record in run.measure(group):
                    records[record.slug] = record
                progress(len(group))
                done += len(group)
        except (ImageError, OSError) as error:
            reason = f"{reason_of(error)}."
            measured.left_out[name] = reason
            progress(len(points) - done)
            message = reason if name in reason else f"{name}: {reason}"
            log(f"{message} It is left out of every codec's average.")
            continue
        measured.records[name], measured.images[name], measured.sha256[name] = records, path, digest
    if not measured.records:
        raise CdcError(f"None of the {len(images)} images could be evaluated.")
    for metric in metrics.of_sets:
        measured.set_scores[metric] = _set_scores(metric, measured, points, metrics, store)
    return measured


class _Coded(NamedTuple):
    """An encoded image: the file, its quality, the encoding times, and the fraction of side information."""

    data: bytes
    quality: float | None
    seconds: float
    first_seconds: float | None
    side_share: float | None


class _ImageRun:
    """Measures one image, one curve at a time."""

    def __init__(self, name: str, original: Image, digest: str, metrics: Metrics, store: Store, warm: set[Hashable]):
        self._name, self._original, self._digest = name, original, digest
        self._metrics, self._store, self._warm = metrics, store, warm
        self._scorer: Scorer = metrics.against(original)
        self._encoded: dict[str, _Coded] = {}
        for metric in metrics.of_sets:
            self._features("original", metric, lambda: original)

    def measure(self, points: Sequence[RatePoint]) -> list[Record]:
        """The records of a curve's points; stored ones are reused."""
        records: list[Record] = []
        images: dict[int, Image] = {}
        for point in points:
            identity = {**point.identity, "image_sha256": self._digest, "cdc_jax": __version__}
            record = self._store.load(self._name, point, identity)
            if record is None:
                record, images[len(records)] = self._code(point, identity)
            records.append(record)

        def image_of(index: int) -> Image:
            if index not in images:
                images[index] = self._store.decoded(self._name, points[index])
            return images[index]

        changed = set(images)
        for metric in self._metrics.of_images:
            missing = [i for i, record in enumerate(records) if metric not in record.scores]
            scores = self._scorer.scores(metric, [image_of(i) for i in missing]) if missing else ()
            for i, score in zip(missing, scores, strict=True):
                records[i].scores[metric] = float(score)
                changed.add(i)
        for metric in self._metrics.of_sets:
            for i, point in enumerate(points):
                self._features(point.slug, metric, lambda i=i: image_of(i))
        for i in sorted(changed):
            self._store.save(records[i], points[i])
        return records

    def _code(self, point: RatePoint, identity: dict[str, Any]) -> tuple[Record, Image]:
        """Encodes and decodes. Times exclude compilation: if a program must be compiled, an extra call comes first."""
        height, width, _ = self._original.shape
        if point.file not in self._encoded:
            self._encoded[point.file] = self._encode(point)
        coded = self._encoded[point.file]
        first_decoding = self._first_call(("decode", point.warm_key(height, width)), point.decode, coded.data)
        decoded, decoding_seconds = _timed(point.decode, coded.data)
        if decoded.shape != self._original.shape:
            raise ImageError(f"{self._name}: {point.curve} decoded to an image of another size.")
        self._store.save_coded(self._name, point, coded.data, decoded)
        record = Record(
            image=self._name,
            curve=point.curve,
            setting=point.setting,
            slug=point.slug,
            width=width,
            height=height,
            file_bytes=len(coded.data),
            encoding_seconds=coded.seconds,
            decoding_seconds=decoding_seconds,
            first_encoding_seconds=coded.first_seconds,
            first_decoding_seconds=first_decoding,
            identity=identity,
            quality=coded.quality,
            target_bpp=point.target_bpp,
            side_share=coded.side_share,
        )
        return record, decoded

    def _encode(self, point: RatePoint) -> _Coded:
        quality = point.quality(self._original)
        first = None
        if point.target_bpp is None:  # otherwise, the search for the quality has already made the first calls
            key = ("encode", point.warm_key(*self._original.shape[:2]))
            first = self._first_call(key, point.encode, self._original, quality)
        data, seconds = _timed(point.encode, self._original, quality)
        share = None if point.side_share is None else point.side_share(self._original, quality)
        return _Coded(data, quality, seconds, first, share)

    def _first_call(self, key: Hashable, function: Callable, *arguments: Any) -> float | None:
        if key in self._warm:
            return None
        seconds = _timed(function, *arguments)[1]
        self._warm.add(key)
        return seconds

    def _features(self, slug: str, metric: str, image: Callable[[], Image]) -> None:
        slug, key = _features_name(slug, self._digest), self._metrics.set_key(metric)
        if self._store.features(self._name, slug, key) is None:
            self._store.save_features(self._name, slug, key, self._metrics.features(metric, image()))


def _timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def _features_name(slug: str, digest: str) -> str:
    return f"{slug}-{digest[:12]}"


def _set_scores(
    metric: str, measured: Measured, points: Sequence[RatePoint], metrics: Metrics, store: Store
) -> dict[str, float]:
    """The distance between the set of originals and each rate point's set of decoded images, by slug."""

    def all_features(slug: str) -> Float[np.ndarray, "n d"]:
        key = metrics.set_key(metric)
        names = [(name, _features_name(slug, measured.sha256[name])) for name in measured.records]
        feature_sets = [store.features(name, slug, key) for name, slug in names]
        if any(features is None for features in feature_sets):
            raise CdcError(f"Features of {metric} are missing from the results: run the same command again.")
        return np.concatenate(feature_sets)

    originals = all_features("original")
    return {point.slug: metrics.set_distance(metric, originals, all_features(point.slug)) for point in points}
