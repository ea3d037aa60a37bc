"""Rate points: a codec at one setting each. They are coded, timed, scored and stored one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cdc_jax.io.images import Image


@dataclass(frozen=True)
class RatePoint:
    """One codec at one setting.

    Attributes:
      curve: name of the rate–distortion curve that the point lies on, such as "JPEG" or "CDC, 5 steps".
      setting: the setting, human-readable: "quality 30", or a bundle's name.
      slug: name of the point's results on disk; unique within an evaluation.
      identity: everything besides the image that the result depends on. A stored result with a different identity is
        not reused.
      quality: image → quality to encode it with: a constant, or the quality of the largest file within `target_bpp`;
        None for a single-rate model.
      encode: (uint8 [h, w, 3], quality) → the bytes of a file.
      decode: the bytes of a file → uint8 [h, w, 3].
      file: name of the encoded file. Points with the same name (one file, several step counts) are encoded once.
      suffix: filename suffix of the encoded file, such as ".jpg".
      warm_key: (height, width) → a key of compiled programs and loaded libraries; the first call with each key is
        not timed.
      kind: "ours" or "baseline".
      steps: number of diffusion steps of our codec; None for others.
      browser_type: media type of the file; None if browsers do not show it.
      description: description of the curve, for result files and the report.
      target_bpp: largest allowed rate in bits per pixel; None if the quality is given.
      side_share: (image, quality) → fraction of the file's ideal bits that is side information, 0 to 1; None for other
        codecs.
    """

    curve: str
    setting: str
    slug: str
    identity: Mapping[str, Any]
    quality: Callable[[Image], float | None]
    encode: Callable[[Image, float | None], bytes]
    decode: Callable[[bytes], Image]
    file: str
    suffix: str
    warm_key: Callable[[int, int], Hashable]
    kind: str
    steps: int | None = None
    browser_type: str | None = None
    description: str = field(default="", compare=False)
    target_bpp: float | None = None
    side_share: Callable[[Image, float | None], float] | None = None


def slug(text: str) -> str:
    """A file name that every system allows: lower-case letters, digits and dots, and dashes for everything else."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"
