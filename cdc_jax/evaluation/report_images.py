"""The report's images: which versions of an image are shown beside each other, and how they get into the page.

A baseline's file goes in as it is where browsers can show it. The original and what our codec made go in as lossless
WebP, unless the page would grow beyond `MAX_LOSSLESS_PIXELS`; then as WebP of quality 95, which the page notes.
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
    """At most `limit` images, spread evenly; None: all."""
    if limit is None or len(names) <= limit:
        return list(names)
    return [names[i * len(names) // limit] for i in range(limit)]


def is_lossless(measured: Measured, names: Sequence[str], points: Sequence[RatePoint]) -> bool:
    """Whether the page has room for lossless images."""
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
    """What the page's script needs of each image: its versions, and a group of them for each of our files.

    A group is the original, ours at each step count, and of every baseline the file nearest in size.
    """
    result = []
    for name in names:
        original, _ = load_image(measured.images[name], max_pixels=max_pixels)
        records = measured.records[name]
        height, width, _ = original.shape
        size = [("pixels", f"{width} × {height}"), ("bits per pixel", "24")]
        views = [_view("original", "original", _webp(original, lossless), "image/webp", "", size)]
        indices: dict[str, int] = {}

        def index_of(point: RatePoint, name: str = name, records=records, views=views, indices=indices) -> int:
            if point.slug not in indices:
                indices[point.slug] = len(views)
                views.append(_view_of(point, records[point.slug], store, name, metrics, lossless))
            return indices[point.slug]

        groups = [
            {"label": label, "views": [0, *(index_of(point) for point in members)]}
            for label, members in _groups(points, records)
        ]
        result.append(
            {
                "name": name,
                "width": width,
                "height": height,
                "thumbnail": _thumbnail(original),
                "groups": groups,
                "views": views,
            }
        )
    return result


def _groups(points: Sequence[RatePoint], records: Mapping[str, Record]) -> list[tuple[str, list[RatePoint]]]:
    """(label, versions) for each of our files; without any, one group around the baselines' middle file size."""
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
    if max(pil_image.size) > 16383:  # more than WebP holds
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
