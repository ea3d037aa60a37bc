"""The evaluation's loop: every picture through every rate point, once.

Pictures are the outer loop, so that an original is read once and what the metrics take from it is computed once; a
curve's missing points are scored in one call per metric. What is finished is on disk (`result_store`) before the next
begins.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cdc_jax.errors import CdcError, ConfigError, ImageError
from cdc_jax.evaluation.rate_points import Picture, RatePoint
from cdc_jax.evaluation.result_store import Record, Store
from cdc_jax.evaluation.scoring import Metrics, Scorer
from cdc_jax.io.files import PICTURE_SUFFIXES
from cdc_jax.io.images import load_image
from cdc_jax.version import __version__

Say = Callable[[str], None]


@dataclass
class Measured:
    """What an evaluation measured.

    Attributes:
      records: of every picture that went through every rate point, by picture and slug.
      left_out: pictures that are in nobody's average, with the reason.
      set_scores: by metric of sets and slug.
      images: path of every picture in `records`, by name.
      sha256: hash of each of those files, by name.
    """

    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    set_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


def find_images(folder: str | Path) -> dict[str, Path]:
    """The picture files below a folder, or one file, by their path in it, sorted.

    Raises:
      ConfigError: there are none.
    """
    folder = Path(folder)
    if folder.is_file():
        return {folder.name: folder}
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder of images")
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
    }
    visible = {name: path for name, path in found.items() if not any(part[0] == "." for part in Path(name).parts)}
    if not visible:
        raise ConfigError(f"{folder}: no {', '.join(PICTURE_SUFFIXES)} file in this folder")
    return visible


def measure(
    images: dict[str, Path],
    points: Sequence[RatePoint],
    metrics: Metrics,
    store: Store,
    *,
    max_pixels: int,
    say: Say = lambda line: None,
    progress: Callable[[int], Any] = lambda done: None,
) -> Measured:
    """Measures every rate point on every picture; what is on disk already is not done again.

    Args:
      images: by name, as `find_images` gives them.
      points: all rate points; slugs are unique.
      metrics: what to score.
      store: finished results.
      max_pixels: above which a picture is refused.
      say: told of every picture that fails.
      progress: called with the number of (picture, point) pairs that were finished.

    Raises:
      CdcError: every picture failed.
    """
    measured = Measured()
    warm: set[Hashable] = set()
    for name, path in images.items():
        done = 0
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            original, _ = load_image(path, max_pixels=max_pixels)
            picture = _PictureRun(name, original, digest, metrics, store, warm)
            records = {}
            for _, group in itertools.groupby(points, key=lambda point: point.curve):
                group = list(group)
                for record in picture.measure(group):
                    records[record.slug] = record
                progress(len(group))
                done += len(group)
        except (ImageError, OSError) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            measured.left_out[name] = reason
            progress(len(points) - done)
            say(f"{reason if name in reason else f'{name}: {reason}'}; left out of every codec's average")
            continue
        measured.records[name], measured.images[name], measured.sha256[name] = records, path, digest
    if not measured.records:
        raise CdcError(f"none of the {len(images)} pictures could be evaluated")
    for metric in metrics.of_sets:
        measured.set_scores[metric] = _set_scores(metric, measured, points, metrics, store)
    return measured


class _PictureRun:
    """One picture through the rate points of one curve at a time."""

    def __init__(
        self, name: str, original: Picture, digest: str, metrics: Metrics, store: Store, warm: set[Hashable]
    ):
        self._name, self._original, self._digest = name, original, digest
        self._metrics, self._store, self._warm = metrics, store, warm
        self._scorer: Scorer = metrics.against(original)
        self._encoded: dict[str, tuple[bytes, float, float | None]] = {}
        for metric in metrics.of_sets:
            self._features("original", metric, lambda: original)

    def measure(self, points: Sequence[RatePoint]) -> list[Record]:
        """The records of some points, stored ones and new ones."""
        records: list[Record] = []
        pictures: dict[int, Picture] = {}
        for point in points:
            identity = {**point.identity, "image_sha256": self._digest, "cdc_jax": __version__}
            record = self._store.load(self._name, point, identity)
            if record is None:
                record, pictures[len(records)] = self._code(point, identity)
            records.append(record)

        def picture_of(index: int) -> Picture:
            if index not in pictures:
                pictures[index] = self._store.decoded(self._name, points[index])
            return pictures[index]

        changed = set(pictures)
        for metric in self._metrics.of_pictures:
            missing = [i for i, record in enumerate(records) if metric not in record.scores]
            scores = self._scorer.scores(metric, [picture_of(i) for i in missing]) if missing else ()
            for i, score in zip(missing, scores, strict=True):
                records[i].scores[metric] = float(score)
                changed.add(i)
        for metric in self._metrics.of_sets:
            for i, point in enumerate(points):
                self._features(point.slug, metric, lambda i=i: picture_of(i))
        for i in sorted(changed):
            self._store.save(records[i], points[i])
        return records

    def _code(self, point: RatePoint, identity: dict[str, Any]) -> tuple[Record, Picture]:
        """Encodes and decodes, warm: where a program must be compiled first, a first call is made for that."""
        height, width, _ = self._original.shape
        if point.file not in self._encoded:
            first = self._first_call(("encode", point.warm_key(height, width)), point.encode, self._original)
            data, seconds = _timed(point.encode, self._original)
            self._encoded[point.file] = data, seconds, first
        data, encoding_seconds, first_encoding = self._encoded[point.file]
        first_decoding = self._first_call(("decode", point.warm_key(height, width)), point.decode, data)
        decoded, decoding_seconds = _timed(point.decode, data)
        if decoded.shape != self._original.shape:
            raise ImageError(f"{self._name}: {point.curve} gave back a picture of another size")
        self._store.save_coded(self._name, point, data, decoded)
        record = Record(
            image=self._name,
            curve=point.curve,
            setting=point.setting,
            slug=point.slug,
            width=width,
            height=height,
            file_bytes=len(data),
            encoding_seconds=encoding_seconds,
            decoding_seconds=decoding_seconds,
            first_encoding_seconds=first_encoding,
            first_decoding_seconds=first_decoding,
            identity=identity,
        )
        return record, decoded

    def _first_call(self, key: Hashable, function: Callable, argument: Any) -> float | None:
        if key in self._warm:
            return None
        seconds = _timed(function, argument)[1]
        self._warm.add(key)
        return seconds

    def _features(self, slug: str, metric: str, picture: Callable[[], Picture]) -> None:
        slug, key = _features_name(slug, self._digest), self._metrics.set_key(metric)
        if self._store.features(self._name, slug, key) is None:
            self._store.save_features(self._name, slug, key, self._metrics.features(metric, picture()))


def _timed(function: Callable, argument: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(argument)
    return result, time.perf_counter() - start


def _features_name(slug: str, digest: str) -> str:
    return f"{slug}-{digest[:12]}"


def _set_scores(
    metric: str, measured: Measured, points: Sequence[RatePoint], metrics: Metrics, store: Store
) -> dict[str, float]:
    """The distance between the originals and each rate point's pictures."""

    def all_features(slug: str) -> Float[np.ndarray, "n d"]:
        key = metrics.set_key(metric)
        names = [(name, _features_name(slug, measured.sha256[name])) for name in measured.records]
        found = [store.features(name, slug, key) for name, slug in names]
        if any(features is None for features in found):
            raise CdcError(f"features of {metric} went missing from the results: run the same command again")
        return np.concatenate(found)

    originals = all_features("original")
    return {point.slug: metrics.set_distance(metric, originals, all_features(point.slug)) for point in points}
