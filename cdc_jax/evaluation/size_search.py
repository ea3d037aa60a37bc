"""Finds the quality for a target file size by bisection, since sizes almost always increase with quality."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence


def largest_within(size_of: Callable[[int], float], least: int, most: int, limit: float) -> int | None:
    """The largest setting from `least` to `most` whose size is at most `limit`; None if that of `least` is larger."""
    if size_of(least) > limit:
        return None
    low, high = least, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size_of(middle) <= limit else (low, middle)
    return low


def settings_for(size_of: Callable[[int], float], least: int, most: int, targets: Sequence[float]) -> list[int]:
    """The largest settings within the target sizes, sorted and distinct. Targets that no setting meets are skipped."""
    size_of = functools.cache(size_of)
    chosen = (largest_within(size_of, least, most, target) for target in targets)
    return sorted({setting for setting in chosen if setting is not None})


def byte_limit(target_bpp: float, height: int, width: int) -> int:
    """The largest number of bytes of an image's file within a target in bits per pixel."""
    return math.floor(target_bpp * height * width / 8)
