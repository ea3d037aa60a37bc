"""Networks on a canvas that is larger than the image: what is outside the image must not affect what is inside.

An image at the top left of a larger canvas yields the same result as on its own, up to rounding, if every convolution
sees zeros outside the image, like its own padding, and the attention's sums leave out the outside. So images of many
sizes share a program. The region is set by a `with` block instead of an argument, since only three layers need it.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class _Region(NamedTuple):
    rows: Int[Array, " b"]
    columns: Int[Array, " b"]
    canvas: tuple[int, int]


_current: contextvars.ContextVar[_Region | None] = contextvars.ContextVar("valid_region", default=None)


@contextlib.contextmanager
def valid_region(rows: Int[Array, " b"], columns: Int[Array, " b"], canvas: tuple[int, int]) -> Iterator[None]:
    """Restricts the layers that are traced in a `with` block to the top left of their maps.

    Args:
      rows, columns: the size of each image of the batch, in cells of y.
      canvas: the size of the maps in cells of y. Maps of other resolutions have proportional regions.
    """
    token = _current.set(_Region(rows, columns, canvas))
    try:
        yield
    finally:
        _current.reset(token)


def inside(height: int, width: int) -> Bool[Array, "b h w"] | None:
    """Which positions of maps of this size are inside the images; None without a region: all of them."""
    region = _current.get()
    if region is None:
        return None
    rows, columns = (
        jnp.arange(length) * cells < valid[:, None] * length
        for length, cells, valid in zip((height, width), region.canvas, region[:2], strict=True)
    )
    return rows[:, :, None] & columns[:, None, :]


def clear_outside(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The maps, with zeros outside the images."""
    mask = inside(*x.shape[1:3])
    return x if mask is None else jnp.where(mask[..., None], x, 0)
