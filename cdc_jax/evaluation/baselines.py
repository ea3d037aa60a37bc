"""The codecs that people use today, through Pillow and its plugins: real files, real sizes.

Each is run as its users get it: Pillow's defaults, but for the options in `BASELINES`, which make smaller files of the
same quality. Qualities are the codecs' own scales of 0 to 100 and mean another thing in each.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import __version__ as pillow_version
from PIL import features

from cdc_jax.errors import CdcError, ConfigError, ImageError, reason_of
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.io.images import Image


@dataclass(frozen=True)
class Baseline:
    """A codec of Pillow's.

    Attributes:
      name: as the command line knows it.
      label: as the plots show it.
      format: Pillow's name.
      suffix: of its files.
      qualities: the default sweep, 0.05 to 2 bits per pixel on photographs.
      options: of Pillow's `save`.
      browser_type: media type under which browsers show it, None where most do not.
    """

    name: str
    label: str
    format: str
    suffix: str
    qualities: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    browser_type: str | None = None


BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            "jpeg",
            "JPEG",
            "JPEG",
            ".jpg",
            (3, 8, 18, 40, 70, 90),
            {"optimize": True, "progressive": True},
            "image/jpeg",
        ),
        Baseline("webp", "WebP", "WEBP", ".webp", (0, 10, 30, 60, 80, 90), {"method": 6}, "image/webp"),
        Baseline("avif", "AVIF", "AVIF", ".avif", (5, 15, 30, 45, 60, 75), {}, "image/avif"),
        Baseline("jxl", "JPEG XL", "JXL", ".jxl", (5, 15, 35, 60, 80, 90)),
    )
}


def baseline_points(names: Sequence[str], qualities: Sequence[int] | None = None) -> list[RatePoint]:
    """The rate points of some baselines.

    Args:
      names: keys of `BASELINES`.
      qualities: 0 to 100, for every codec alike; None: each codec's own sweep.

    Raises:
      ConfigError: an unknown name or an invalid quality.
      CdcError: this Pillow cannot write the format; the message names what to install.
    """
    points = []
    for name in dict.fromkeys(names):
        if name not in BASELINES:
            raise ConfigError(f"There is no codec {name!r} to compare with; known are {', '.join(BASELINES)}.")
        baseline = BASELINES[name]
        library = _library(baseline)
        for quality in sorted(set(baseline.qualities if qualities is None else qualities)):
            if not 0 <= quality <= 100:
                raise ConfigError(f"Quality is {quality}; it must be between 0 and 100.")
            points.append(_point(baseline, quality, library))
    return points


def encode(baseline: Baseline, image: Image, quality: int) -> bytes:
    """The bytes of a file. Raises ImageError where the format cannot hold the image."""
    buffer = io.BytesIO()
    try:
        pil_image = PILImage.fromarray(np.ascontiguousarray(image))
        pil_image.save(buffer, baseline.format, quality=quality, **baseline.options)
    except Exception as error:  # encoders raise OSError, ValueError, RuntimeError and worse
        height, width, _ = image.shape
        size = f"{width}×{height} pixels"
        raise ImageError(f"{baseline.label} cannot hold an image of {size} ({reason_of(error)}).") from None
    return buffer.getvalue()


def decode(baseline: Baseline, data: bytes) -> Image:
    """The image in a file."""
    with PILImage.open(io.BytesIO(data), formats=[baseline.format]) as pil_image:
        return np.asarray(pil_image.convert("RGB"))


def _point(baseline: Baseline, quality: int, library: str) -> RatePoint:
    options = ", ".join(f"{key}={value}" for key, value in {"quality": "…", **baseline.options}.items())
    return RatePoint(
        curve=baseline.label,
        setting=f"quality {quality}",
        slug=f"{baseline.name}-q{quality}",
        identity={"codec": baseline.name, "quality": quality, "options": dict(baseline.options), "library": library},
        encode=lambda image: encode(baseline, image, quality),
        decode=lambda data: decode(baseline, data),
        file=f"{baseline.name}-q{quality}",
        suffix=baseline.suffix,
        warm_key=lambda height, width: baseline.name,
        kind="baseline",
        browser_type=baseline.browser_type,
        description=f"{baseline.label} by {library}, {options}",
    )


def _library(baseline: Baseline) -> str:
    """Who writes the format, with its version."""
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
