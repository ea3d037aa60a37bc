"""Decodes images of many sizes with few programs: determines which images share a canvas.

Compiling a program takes as long as decoding several images. If a set of files has many sizes, images are therefore
decoded at the top left of larger canvases (`models.valid_region`), where that saves time. The pixels are the same as
without a canvas, up to rounding: within ±1 of 255. A canvas is at most as large as the largest image of the set, so the
memory does not grow. The canvases depend only on the sizes and the number of steps.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from cdc_jax.codec.tiling import default_tile

FEW_SIZES = 8  # sets with up to this many sizes are decoded without canvases, exactly like each file alone
# A program counts as much as decoding this many pixels in one step. On a CPU, compiling takes as long as 3 to 5
# million; up to twice that, the total hardly changes, and fewer programs take less memory and disk.
PROGRAM_PIXELS = 8 << 20

Size = tuple[int, int]


def shared_canvases(sizes: Sequence[Size | None], steps: int) -> list[Size | None]:
    """The canvas of each image of a set.

    Args:
      sizes: padded (height, width) of each image in pixels; None for an image that is left out.
      steps: the number of decoding steps. 0 needs no program, and so no canvas.

    Returns:
      For each image, the canvas's (height, width), or None if it has no canvas: because it is left out, is decoded in
      tiles, or shares its program only with images of its own size.
    """
    counts = Counter(size for size in sizes if size is not None and default_tile(*size) is None)
    if steps == 0 or len(counts) <= FEW_SIZES:
        return [None] * len(sizes)
    canvases = _merge(counts, PROGRAM_PIXELS // steps)
    chosen = {size: min((each for each in canvases if _union(each, size) == each), key=_area) for size in counts}
    members = Counter(chosen.values())
    return [chosen[size] if size in chosen and members[chosen[size]] > 1 else None for size in sizes]


def _merge(counts: Counter[Size], program_pixels: int) -> list[Size]:
    """Merges canvases as long as that saves time. Starts with one canvas per size, and merges the best pair first."""
    largest = max(map(_area, counts))
    canvases = dict(counts)

    def saving(pair: tuple[Size, Size]) -> int:
        """The pixels that merging two canvases saves: those of one program, minus the additional ones to decode."""
        union = _area(_union(*pair))
        surplus = sum((union - _area(canvas)) * canvases[canvas] for canvas in pair)
        return program_pixels - surplus if union <= largest else -1

    while len(canvases) > 1:
        pair = max(itertools.combinations(sorted(canvases), 2), key=saving)
        if saving(pair) <= 0:
            break
        images = sum(canvases.pop(canvas) for canvas in pair)
        union = _union(*pair)
        canvases[union] = canvases.get(union, 0) + images
    return list(canvases)


def _union(first: Size, second: Size) -> Size:
    return max(first[0], second[0]), max(first[1], second[1])


def _area(size: Size) -> int:
    return size[0] * size[1]
