"""The report's images: which versions of an image are compared, and how they are embedded in the page.

A baseline's file is embedded as it is if browsers can show it. Originals and images decoded by our codec are embedded
as lossless WebP or, if they have more than `MAX_LOSSLESS_PIXELS` in total, as WebP of quality 95, which the page
states.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as PILImage

from cdc_jax.evaluation.measure import Measured
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.result_store import Record, Store
from cdc_jax.evaluation.scoring import MetricFacts
from cdc_jax.evaluation.tables import number
from cdc_jax.io.images import Image, load_image

MAX_LOSSLESS_PIXELS = 40_000_000
_THUMBNAIL_HEIGHT = 96


def chosen_images(names: Sequence[str], limit: int | None) -> list[str]:
    """At most `limit` of the names, spread evenly; None: all."""
    if limit is None or len(names) <= limit:
        return list(names)
    return [names[i * len(names) // limit] for i in range(limit)]


def is_lossless(measured: Measured, names: Sequence[str], points: Sequence[RatePoint]) -> bool:
    """Whether originals and our images have at most `MAX_LOSSLESS_PIXELS` in total."""
    ours = 1 + sum(point.kind == "ours" for point in points)
    sizes = [next(iter(measured.records[name].values())) for name in names]
    return sum(record.width * record.height for record in sizes) * ours <= MAX_LOSSLESS_PIXELS


def images_data(
    measured: Measured,
    points: Sequence[RatePoint],
    metrics: Sequence[MetricFacts],
    store: Store,
    names: Sequence[str],
    *,
    lossless: bool,
    max_pixels: int,
) -> list[dict[str, Any]]:
    """The data of the report's images, as JSON values for the page's script.

    Every image has versions ("views"), and a group of them for each of our files: the original, our decoded images at
    each step count, and for every baseline the file nearest in size.

    Args:
      measured: the measurements.
      points: all rate points.
      metrics: the scores to show.
      store: stored files and decoded images.
      names: the images to show.
      lossless: whether to embed originals and our images losslessly.
      max_pixels: largest number of pixels of an image.
    """
    result = []
    for name in names:
        original, _ = load_image(measured.images[name], max_pixels=max_pixels)
        records = measured.records[name]
        groups = _groups(points, records)
        versions = list(dict.fromkeys(point.slug for _, members in groups for point in members))
        by_slug = {point.slug: point for point in points}
        views = [_view_of(by_slug[slug], records[slug], store, name, metrics, lossless) for slug in versions]
        indices = {slug: index for index, slug in enumerate(versions, start=1)}
        image = {
            "name": name,
            "width": original.shape[1],
            "height": original.shape[0],
            "thumbnail": _thumbnail(original),
            "groups": [
                {"label": label, "views": [0, *(indices[point.slug] for point in members)]} for label, members in groups
            ],
            "views": [_view_of_original(original, lossless), *views],
        }
        result.append(image)
    return result


def _view_of_original(original: Image, lossless: bool) -> dict[str, Any]:
    height, width, _ = original.shape
    numbers = [("pixels", f"{width} × {height}"), ("bits per pixel", "24")]
    return _view("original", "original", _webp(original, lossless), "image/webp", "", numbers)


def _groups(points: Sequence[RatePoint], records: Mapping[str, Record]) -> list[tuple[str, list[RatePoint]]]:
    """(label, versions) for each of our files; without any, one group at the baselines' median file size."""
    ours: dict[str, list[RatePoint]] = {}
    baselines: dict[str, list[RatePoint]] = {}
    for point in points:
        if point.kind == "ours":
            ours.setdefault(point.file, []).append(point)
        else:
            baselines.setdefault(point.curve, []).append(point)

    def nearest(members: Sequence[RatePoint], size: float) -> RatePoint:
        return min(members, key=lambda point: abs(records[point.slug].file_bytes - size))

    groups = []
    for members in ours.values():
        record = records[members[0].slug]
        family = members[0].curve.rsplit(",", 1)[0]
        label = f"{family} {members[0].setting}, {record.file_bytes:,} bytes"
        beside = [nearest(others, record.file_bytes) for others in baselines.values()]
        groups.append((label, [*sorted(members, key=lambda point: point.steps or 0), *beside]))
    if not groups:
        size = float(np.median([record.file_bytes for record in records.values()]))
        groups.append((f"about {size:,.0f} bytes", [nearest(others, size) for others in baselines.values()]))
    return groups


def _view_of(
    point: RatePoint, record: Record, store: Store, name: str, metrics: Sequence[MetricFacts], lossless: bool
) -> dict[str, Any]:
    if point.browser_type:
        data, media_type = store.file_path(name, point).read_bytes(), point.browser_type
    else:
        data, media_type = _webp(store.decoded(name, point), lossless), "image/webp"
    label = point.curve if point.kind == "ours" else f"{point.curve}, {point.setting}"
    size = f"{record.file_bytes:,}"
    numbers = [("bytes", size), ("bits per pixel", f"{record.bpp:.3f}")]
    numbers += [(m.label, number(record.scores[m.name], m.name)) for m in metrics if m.name in record.scores]
    return _view(label, point.kind, data, media_type, f"{size} bytes", numbers)


def _view(
    label: str, kind: str, data: bytes, media_type: str, size: str, numbers: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    return {
        "label": label,
        "kind": kind,
        "size": size,
        "numbers": numbers,
        "type": media_type,
        "data": base64.b64encode(data).decode(),
    }


def _webp(image: Image, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    pil_image = PILImage.fromarray(np.ascontiguousarray(image))
    if max(pil_image.size) > 16383:  # too large for WebP
        pil_image.save(buffer, "PNG")
    else:
        pil_image.save(buffer, "WEBP", lossless=lossless, quality=60 if lossless else 95, method=2)
    return buffer.getvalue()


def _thumbnail(image: Image) -> str:
    pil_image = PILImage.fromarray(np.ascontiguousarray(image))
    pil_image.thumbnail((4 * _THUMBNAIL_HEIGHT, _THUMBNAIL_HEIGHT))
    buffer = io.BytesIO()
    pil_image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
