"""Results on disk, so that an evaluation can resume where it stopped.

    results/IMAGE/POINT.json          a record: size, times, scores, and the identity that they are valid for
    files/IMAGE/POINT.SUFFIX          the compressed file
    images/IMAGE/POINT.png            the image decoded by our codec; baselines are fast to decode again
    features/IMAGE/POINT.METRIC.npy   features of metrics that compare sets of images

IMAGE is the original's path relative to the image folder, including its suffix.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.size_search import byte_limit
from cdc_jax.io.files import write_atomically
from cdc_jax.io.images import Image, encode_image, read_image


@dataclass
class Record:
    """The results of one rate point on one image.

    Attributes:
      image: the image's name.
      curve, setting, slug: as in `RatePoint`.
      width, height: the image's size in pixels.
      file_bytes: size of the compressed file, including headers.
      encoding_seconds, decoding_seconds: times without compilation.
      first_encoding_seconds, first_decoding_seconds: times of the first call, with compilation; None if the first call
        was for another image of the same size.
      scores: scores by metric; NaN if the image is too small for it.
      identity: identity of rate point and image.
      quality: the quality it was encoded with; None for a single-rate model.
      target_bpp: largest allowed rate in bits per pixel; None if the quality was given.
      side_share: fraction of the file that is side information, 0 to 1; None for other codecs.
    """

    image: str
    curve: str
    setting: str
    slug: str
    width: int
    height: int
    file_bytes: int
    encoding_seconds: float
    decoding_seconds: float
    first_encoding_seconds: float | None
    first_decoding_seconds: float | None
    scores: dict[str, float] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    quality: float | None = None
    target_bpp: float | None = None
    side_share: float | None = None

    @property
    def bpp(self) -> float:
        """The file's bits per pixel."""
        return 8 * self.file_bytes / (self.width * self.height)

    @property
    def within_target(self) -> bool:
        """Whether the file is within the target size. It is not if even the lowest quality produces a larger file."""
        return self.target_bpp is None or self.file_bytes <= byte_limit(self.target_bpp, self.height, self.width)


class Store:
    """The stored results in an evaluation's folder."""

    def __init__(self, folder: Path):
        self._folder = Path(folder)

    def load(self, image: str, point: RatePoint, identity: Mapping[str, Any]) -> Record | None:
        """The stored record; None if there is none, it is corrupt, its identity differs, or its file is missing."""
        try:
            facts = json.loads(self._record(image, point).read_text("utf-8"))
            facts["scores"] = {name: _number(value) for name, value in facts["scores"].items()}
            record = Record(**{f.name: facts[f.name] for f in dataclasses.fields(Record) if f.name in facts})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if record.identity != json.loads(json.dumps(dict(identity))):
            return None
        try:
            if self.file_path(image, point).stat().st_size != record.file_bytes:
                return None
            if point.kind == "ours" and not self._image(image, point).is_file():
                return None
        except OSError:
            return None
        # Human-readable names may change between runs; only the identity matters.
        return dataclasses.replace(record, image=image, curve=point.curve, setting=point.setting, slug=point.slug)

    def save(self, record: Record, point: RatePoint) -> None:
        """Writes a record atomically. Its file and image must have been saved before."""
        facts = dataclasses.asdict(record)
        facts["scores"] = {name: finite(value) for name, value in record.scores.items()}
        _write(self._record(record.image, point), (json.dumps(facts, indent=1) + "\n").encode())

    def save_coded(self, image: str, point: RatePoint, data: bytes, decoded: Image) -> None:
        """Writes the compressed file and, for our codec, the decoded image."""
        _write(self.file_path(image, point), data)
        if point.kind == "ours":
            _write(self._image(image, point), encode_image(decoded, "png"))

    def decoded(self, image: str, point: RatePoint) -> Image:
        """The decoded image of a record that `load` returned."""
        if point.kind == "ours":
            return read_image(self._image(image, point))
        return point.decode(self.file_path(image, point).read_bytes())

    def file_path(self, image: str, point: RatePoint) -> Path:
        """Path of the compressed file, which several step counts share."""
        return self._folder / "files" / image / f"{point.file}{point.suffix}"

    def features(self, image: str, slug: str, metric: str) -> Float[np.ndarray, "n d"] | None:
        """The stored features of an image for a metric that compares sets; None if there are none."""
        try:
            return np.load(self._features(image, slug, metric), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def save_features(self, image: str, slug: str, metric: str, features: Float[np.ndarray, "n d"]) -> None:
        """Writes features, as float32."""
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(features, np.float32), allow_pickle=False)
        _write(self._features(image, slug, metric), buffer.getvalue())

    def _record(self, image: str, point: RatePoint) -> Path:
        return self._folder / "results" / image / f"{point.slug}.json"

    def _image(self, image: str, point: RatePoint) -> Path:
        return self._folder / "images" / image / f"{point.slug}.png"

    def _features(self, image: str, slug: str, metric: str) -> Path:
        return self._folder / "features" / image / f"{slug}.{metric}.npy"


def finite(value: float) -> float | str | None:
    """A number in a form that JSON supports: NaN becomes null, and infinity (PSNR of equal images) becomes "inf"."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
