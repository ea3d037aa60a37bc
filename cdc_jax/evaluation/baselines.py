"""The common image formats as baselines, through Pillow and its plugins.

Each codec runs with Pillow's defaults, except for the options in `BASELINES`, which make smaller files of the same
quality. A quality is a number from 0 to 100 on the codec's own scale and cannot be compared between codecs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import __version__ as pillow_version
from PIL import features

from cdc_jax.errors import CdcError, ConfigError, ImageError, reason_of
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.size_search import byte_limit, largest_within, settings_for
from cdc_jax.io.images import Image


@dataclass(frozen=True)
class Baseline:
    """An image format that Pillow writes.

    Attributes:
      name: name on the command line.
      label: name in plots and tables.
      format: Pillow's name of the format.
      suffix: filename suffix of its files.
      options: keyword arguments of Pillow's `save`.
      browser_type: media type of its files; None if most browsers do not show them.
    """

    name: str
    label: str
    format: str
    suffix: str
    options: Mapping[str, Any] = field(default_factory=dict)
    browser_type: str | None = None


MAX_QUALITY = 100
DEFAULT_BPP = (0.15, 0.25, 0.4, 0.65, 1.0, 1.5)  # approximate rates of the default rate points

BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline("jpeg", "JPEG", "JPEG", ".jpg", {"optimize": True, "progressive": True}, "image/jpeg"),
        Baseline("webp", "WebP", "WEBP", ".webp", {"method": 6}, "image/webp"),
        Baseline("avif", "AVIF", "AVIF", ".avif", {}, "image/avif"),
        Baseline("jxl", "JPEG XL", "JXL", ".jxl"),
    )
}


def baseline_points(
    names: Sequence[str],
    qualities: Sequence[int] | None = None,
    *,
    targets_bpp: Sequence[float] = (),
    samples: Callable[[], Sequence[Image]] = lambda: (),
) -> list[RatePoint]:
    """The rate points of some baselines.

    Args:
      names: keys of `BASELINES`.
      qualities: 0 to 100, the same for every codec; None: for each codec, those at which the samples' files have
        `DEFAULT_BPP`.
      targets_bpp: if not empty, the points are instead each image's largest files within these sizes.
      samples: returns a few representative images.

    Raises:
      ConfigError: a name is unknown or a quality is invalid.
      CdcError: this Pillow cannot write the format; the message says what to install.
    """
    points = []
    for name in dict.fromkeys(names):
        if name not in BASELINES:
            raise ConfigError(f"There is no codec {name!r} to compare with; known are {', '.join(BASELINES)}.")
        baseline = BASELINES[name]
        library = _library(baseline)
        if targets_bpp:
            points += [_target_point(baseline, target, library) for target in sorted(set(targets_bpp))]
            continue
        for quality in sorted(set(_default_qualities(baseline, samples()) if qualities is None else qualities)):
            if not 0 <= quality <= MAX_QUALITY:
                raise ConfigError(f"Quality is {quality}; it must be between 0 and {MAX_QUALITY}.")
            points.append(_point(baseline, quality, library))
    return points


def _default_qualities(baseline: Baseline, samples: Sequence[Image]) -> list[int]:
    """The qualities at which all samples together have `DEFAULT_BPP`; without samples, a spread over the scale."""
    if not samples:
        return [5, 20, 40, 60, 80, 90]
    pixels = sum(image.shape[0] * image.shape[1] for image in samples)

    def bpp(quality: int) -> float:
        return 8 * sum(len(encode(baseline, image, quality)) for image in samples) / pixels

    return settings_for(bpp, 0, MAX_QUALITY, DEFAULT_BPP) or [0]


def encode(baseline: Baseline, image: Image, quality: int) -> bytes:
    """Encodes an image to the bytes of a file. Raises ImageError if the format cannot store it."""
    buffer = io.BytesIO()
    try:
        pil_image = PILImage.fromarray(np.ascontiguousarray(image))
        pil_image.save(buffer, baseline.format, quality=quality, **baseline.options)
    except Exception as error:  # encoders raise OSError, ValueError, RuntimeError and others
        height, width, _ = image.shape
        size = f"{width}×{height} pixels"
        raise ImageError(f"{baseline.label} cannot hold an image of {size} ({reason_of(error)}).") from None
    return buffer.getvalue()


def decode(baseline: Baseline, data: bytes) -> Image:
    """Decodes the bytes of a file."""
    with PILImage.open(io.BytesIO(data), formats=[baseline.format]) as pil_image:
        return np.asarray(pil_image.convert("RGB"))


def _point(baseline: Baseline, quality: int, library: str) -> RatePoint:
    return RatePoint(
        setting=f"quality {quality}",
        quality=lambda image: quality,
        **_common(baseline, library, f"{baseline.name}-q{quality}", {"quality": quality}),
    )


def _target_point(baseline: Baseline, target_bpp: float, library: str) -> RatePoint:
    def quality(image: Image) -> int:
        limit = byte_limit(target_bpp, *image.shape[:2])
        return largest_within(lambda q: len(encode(baseline, image, q)), 0, MAX_QUALITY, limit) or 0

    return RatePoint(
        setting=f"{target_bpp:g} bpp",
        quality=quality,
        target_bpp=target_bpp,
        **_common(baseline, library, f"{baseline.name}-{target_bpp:g}bpp", {"target_bpp": target_bpp}),
    )


def _common(baseline: Baseline, library: str, slug: str, setting: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `RatePoint` that do not depend on how the quality is chosen."""
    options = ", ".join(f"{key}={value}" for key, value in {"quality": "…", **baseline.options}.items())
    return {
        "curve": baseline.label,
        "slug": slug,
        "identity": {"codec": baseline.name, **setting, "options": dict(baseline.options), "library": library},
        "encode": lambda image, quality: encode(baseline, image, quality),
        "decode": lambda data: decode(baseline, data),
        "file": slug,
        "suffix": baseline.suffix,
        "warm_key": lambda height, width: baseline.name,
        "kind": "baseline",
        "browser_type": baseline.browser_type,
        "description": f"{baseline.label} by {library}, {options}",
    }


def _library(baseline: Baseline) -> str:
    """Name and version of the library that writes the format. Raises CdcError if there is none."""
    if baseline.name == "jxl":
        try:
            import pillow_jxl  # registers the format with Pillow
        except ImportError:
            raise CdcError("JPEG XL needs pillow-jxl-plugin: pip install '.[eval]'.") from None
        return f"pillow-jxl-plugin {getattr(pillow_jxl, '__version__', '')}".strip()
    feature = {"jpeg": "jpg", "webp": "webp", "avif": "avif"}[baseline.name]
    if not features.check(feature):
        raise CdcError(
            f"This Pillow was built without {baseline.label}: install Pillow 11.3 or newer from its wheels, "
            f"or leave {baseline.name} out of --codecs."
        )
    version = features.version(feature)
    return f"Pillow {pillow_version}" + (f" ({version})" if version else "")
