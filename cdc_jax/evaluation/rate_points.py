"""A rate point: one codec at one setting, the unit in which everything is coded, timed, scored and stored."""

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
      setting: the point's position on it, human-readable: "quality 30", a bundle's name.
      slug: names the point's results on disk; unique within an evaluation.
      identity: everything besides the image that the result depends on; a stored result of another identity is
        not used again.
      quality: image → the codec's quality for it: one for all, or the one whose file keeps to `target_bpp`; None in a
        model of one rate.
      encode: uint8 [h, w, 3], that quality → the bytes of a file.
      decode: those bytes → uint8 [h, w, 3].
      file: names what `encode` makes; points that share it (one file, several step counts) are encoded once.
      suffix: of such a file, such as ".jpg".
      warm_key: height, width → what a first, untimed call is needed for: compiled programs, loaded libraries.
      kind: "ours" or "baseline".
      steps: diffusion steps of ours.
      browser_type: media type under which browsers show the file as it is; None: they do not.
      description: of the curve, for the results' files.
      target_bpp: bits per pixel of the largest file allowed; None where the quality is given.
      side_share: image, quality → side information's part of the file's ideal bits, 0 to 1; None in other codecs.
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
    """Lower case, digits, dots and dashes: fit for a file name everywhere."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"
