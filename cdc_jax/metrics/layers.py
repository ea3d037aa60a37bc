"""Layers of the perceptual networks, as functions of float32 arrays in NHWC."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdc_jax.models.convolution import convolve

Params = dict[str, Array]

# Scores must not depend on how accelerators round float32 products.
PRECISION = "highest"


def convolution(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw i o"],
    bias: Float[Array, " o"] | None = None,
    *,
    stride: int = 1,
    padding: Sequence[int] = (0, 0),
    precision: str | None = PRECISION,
) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation with zero padding.

    Args:
      x: maps.
      kernel: the kernel.
      bias: added to the output; None: nothing.
      stride: the stride of both axes.
      padding: (rows added above and below, columns added left and right).
      precision: precision of the products, as in `jax.lax`.
    """
    y = convolve(x, kernel, tuple((size, size) for size in padding), stride, precision)
    return y if bias is None else y + bias


def max_pool(x: Float[Array, "b h w c"], window: int, stride: int, padding: int = 0) -> Float[Array, "b h2 w2 c"]:
    """Maximum over window×window pixels, padded with -∞; windows that exceed the padded image are left out."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


def average_pool_within(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Mean over the 3×3 neighborhood of each pixel, excluding padding: at the border, over fewer pixels."""
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))

    def window_sum(values):
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), pads)

    return window_sum(x) / window_sum(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def spatial_mean(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Mean over all pixels. It avoids one long float32 sum, which would be inexact.

    It first adds eight bands of rows, then eight bands of columns: on CPUs, XLA's additions are several times faster
    than its reductions.
    """
    return _banded(_banded(x, 1), 2).sum(axis=2).sum(axis=1) / (x.shape[1] * x.shape[2])


def _banded(x: Float[Array, "b h w c"], axis: int) -> Float[Array, "b h2 w2 c"]:
    """The sum of eight equal bands along an axis, followed by the rows or columns that are left over."""
    band, whole = x.shape[axis] // 8, x.shape[axis] // 8 * 8
    if not band:
        return x
    total = sum(jax.lax.slice_in_dim(x, start, start + band, axis=axis) for start in range(0, whole, band))
    rest = jax.lax.slice_in_dim(x, whole, x.shape[axis], axis=axis)
    return jnp.concatenate([total, rest], axis) if rest.shape[axis] else total


def imagenet_normalized(x: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """RGB in [-1, 1] → channels with mean 0 and variance 1 over ImageNet, the input of VGG16 and AlexNet."""
    mean = jnp.asarray((-0.030, -0.088, -0.188), x.dtype)
    deviation = jnp.asarray((0.458, 0.448, 0.450), x.dtype)
    return (x - mean) / deviation
