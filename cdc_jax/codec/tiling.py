"""The tiles of an image: their positions, sizes and blending weights. NumPy only.

All tiles along an axis have the same length: the smallest length with which the same number of tiles covers the axis,
so that little is computed twice. They start at multiples of 64, and adjacent tiles overlap by `overlap` pixels, or more
at the last tile, which ends at the image's edge. The outermost quarter of an overlap has weight 0, because the tile
sees an edge there that is not in the image. Over the middle half, one tile fades into the next.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cdc_jax.errors import ConfigError
from cdc_jax.models.config import STRIDE

WHOLE_PIXELS = 1 << 20  # images of up to this many pixels are decoded whole
TILE = 768  # largest side of a tile in pixels, by default
OVERLAP = 128  # pixels
MIN_TILE = OVERLAP + STRIDE

Span = tuple[int, int]


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of an image.

    Attributes:
      length: the image's length in pixels, a multiple of 64.
      tile: largest length of a tile in pixels, a multiple of 64.
      overlap: smallest overlap of adjacent tiles in pixels, a multiple of 64 smaller than the tile.

    Raises:
      ConfigError: the tile is not a multiple of 64, or not larger than the overlap.
    """

    length: int
    tile: int
    overlap: int

    def __post_init__(self):
        check_tile(self.tile, self.overlap)

    @functools.cached_property
    def count(self) -> int:
        """The number of tiles: the smallest possible."""
        return max(1, -(-(self.length - self.overlap) // (self.tile - self.overlap)))

    @functools.cached_property
    def tile_length(self) -> int:
        """The length of each tile in pixels, a multiple of 64; the image's length if there is one tile."""
        return STRIDE * -(-(self.length + (self.count - 1) * self.overlap) // (self.count * STRIDE))

    @functools.cached_property
    def spans(self) -> list[Span]:
        """(first pixel, last pixel + 1) of each tile."""
        starts = (index * (self.tile_length - self.overlap) for index in range(self.count))
        last = self.length - self.tile_length
        return [(min(start, last), min(start, last) + self.tile_length) for start in starts]

    @functools.cached_property
    def cores(self) -> list[Span]:
        """The part of each tile to use without blending, as in `spans`: up to the middle of each overlap."""
        middles = [(a[1] + b[0]) // 2 for a, b in zip(self.spans, self.spans[1:], strict=False)]
        return list(zip([0, *middles], [*middles, self.length], strict=True))

    @functools.cached_property
    def weights(self) -> list[Float[np.ndarray, " tile"]]:
        """The blending weights of each tile's pixels. They sum to 1 at each pixel of the image."""
        margin, ramp = self.overlap // 4, self.overlap - 2 * (self.overlap // 4)
        total, weights = np.zeros(self.length), []
        for first, last in self.spans:
            position = np.arange(last - first) + 0.5
            weight = np.ones(last - first)
            if first > 0:
                weight = np.minimum(weight, np.clip((position - margin) / ramp, 0, 1))
            if last < self.length:
                weight = np.minimum(weight, np.clip((last - first - position - margin) / ramp, 0, 1))
            total[first:last] += weight
            weights.append(weight)
        return [
            (weight / total[slice(*span)]).astype(np.float32) for span, weight in zip(self.spans, weights, strict=True)
        ]


def check_tile(tile: int, overlap: int = OVERLAP) -> None:
    """Raises ConfigError unless `tile` is a multiple of 64 above `overlap`, in pixels."""
    if tile % STRIDE or tile <= overlap:
        raise ConfigError(f"A tile cannot have {tile} pixels a side: take a multiple of {STRIDE} above {overlap}.")


def default_tile(height: int, width: int) -> int | None:
    """The default largest side of a tile for an image of this padded size; None if it is decoded whole."""
    return None if height * width <= WHOLE_PIXELS else TILE


def tile_shape(height: int, width: int, tile: int | None) -> tuple[int, int]:
    """Height and width of an image's tiles in pixels, given its padded size and the largest side of a tile, or None."""
    if tile is None or tile >= max(height, width):
        return height, width
    return Axis(height, tile, OVERLAP).tile_length, Axis(width, tile, OVERLAP).tile_length


def tile_count(height: int, width: int, tile: int | None) -> int:
    """The number of an image's tiles, given its padded size and the largest side of a tile, or None."""
    if tile is None or tile >= max(height, width):
        return 1
    return Axis(height, tile, OVERLAP).count * Axis(width, tile, OVERLAP).count
