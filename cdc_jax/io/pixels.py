"""Between 8-bit pixels and the range [−1, 1] that the networks see."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_unit_range(image: UInt8[Array, "..."], dtype: jnp.dtype = jnp.float32) -> Float[Array, "..."]:
    """0 … 255 → [−1, 1], float32 unless another type is asked for."""
    return image.astype(dtype) / 127.5 - 1


def to_uint8(image: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """[−1, 1] → 0 … 255, floor(x + ½); what lies outside is clipped."""
    return jnp.floor(jnp.clip((image + 1) * 127.5 + 0.5, 0, 255)).astype(jnp.uint8)
