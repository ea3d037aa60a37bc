"""Conversion between 8-bit pixels and the range [−1, 1] of the networks."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_unit_range(image: UInt8[Array, "..."], dtype: jnp.dtype = jnp.float32) -> Float[Array, "..."]:
    """Maps 0 to 255 linearly to [−1, 1], in float32 by default."""
    return image.astype(dtype) / 127.5 - 1


def to_uint8(image: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Maps [−1, 1] linearly to 0 to 255, rounds halves up, and clips values outside."""
    return jnp.floor(jnp.clip((image + 1) * 127.5 + 0.5, 0, 255)).astype(jnp.uint8)
