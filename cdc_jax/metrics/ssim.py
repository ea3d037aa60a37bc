"""SSIM and MS-SSIM of RGB images: at most 1, higher is better.

SSIM: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004, with its
Gaussian window of 11 taps, σ = 1.5, population covariances, K₁ = 0.01 and K₂ = 0.03. It is averaged over the positions
where the window is inside the image, then over the three channels.

MS-SSIM: Wang et al., "Multi-scale Structural Similarity for Image Quality Assessment", Asilomar 2003. It has five
scales, each the 2×2 mean of the previous one, which are combined per channel and then averaged over the channels.
Negative terms count as 0. Sides of odd length are padded with a line of zeros at the front before they are halved, as
in pytorch-msssim, which CompressAI and most papers on compression use.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from cdc_jax.metrics.layers import spatial_mean

_TAPS = 11
_SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST_SIDE = _TAPS
MULTI_SCALE_SMALLEST_SIDE = (_TAPS - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
# Subtracted from pixels: variances do not change, and float32 computes them more precisely around zero.
_CENTER = 128.0

# Pixels minus `_CENTER`, their local means, their local variances.
Moments = tuple[Float[Array, "b h w 3"], Float[Array, "b h2 w2 3"], Float[Array, "b h2 w2 3"]]


def _window() -> list[float]:
    offsets = np.arange(_TAPS) - _TAPS // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    return [float(w) for w in weights / weights.sum()]


def _blur(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The Gaussian-weighted mean at all window positions, by shifted sums, since XLA's depthwise kernels are slow."""
    for axis in (1, 2):
        length = x.shape[axis] - _TAPS + 1
        parts = (jax.lax.slice_in_dim(x, t, t + length, axis=axis) * w for t, w in enumerate(_window()))
        x = sum(parts, start=jnp.zeros((), x.dtype))
    return x


def _moments(x: Float[Array, "b h w 3"]) -> Moments:
    centered = x - _CENTER
    mean = _blur(centered)
    return centered, mean, _blur(centered**2) - mean**2


def _similarity(a: Moments, b: Moments) -> tuple[Float[Array, "b 3"], Float[Array, "b 3"]]:
    """(SSIM, its contrast–structure factor), each averaged over positions, per channel."""
    (x, x_mean, x_variance), (y, y_mean, y_variance) = a, b
    covariance = _blur(x * y) - x_mean * y_mean
    structure = (2 * covariance + _C2) / (x_variance + y_variance + _C2)
    x_mean, y_mean = x_mean + _CENTER, y_mean + _CENTER
    luminance = (2 * x_mean * y_mean + _C1) / (x_mean**2 + y_mean**2 + _C1)
    return spatial_mean(luminance * structure), spatial_mean(structure)


def _halved(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    odd = [(side % 2, 0) for side in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *odd, (0, 0)))
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def _pyramid(images: UInt8[Array, "b h w 3"]) -> list[Moments]:
    x = images.astype(jnp.float32)
    result = [_moments(x)]
    for _ in SCALE_WEIGHTS[1:]:
        x = _halved(x)
        result.append(_moments(x))
    return result


@jax.jit
def reference(_, image: UInt8[Array, "1 h w 3"]) -> Moments:
    """The local moments of the original, for `compare`."""
    return _moments(image.astype(jnp.float32))


@jax.jit
def compare(_, original: Moments, images: UInt8[Array, "b h w 3"]) -> Float[Array, " b"]:
    """SSIM of each image with the original; sides of at least `SMALLEST_SIDE`."""
    similarity, _ = _similarity(original, _moments(images.astype(jnp.float32)))
    return jnp.minimum(similarity.mean(axis=-1), 1)


@jax.jit
def multi_scale_reference(_, image: UInt8[Array, "1 h w 3"]) -> list[Moments]:
    """The local moments of the original at all scales, for `multi_scale_compare`."""
    return _pyramid(image)


@jax.jit
def multi_scale_compare(_, original: list[Moments], images: UInt8[Array, "b h w 3"]) -> Float[Array, " b"]:
    """MS-SSIM of each image with the original; sides of at least `MULTI_SCALE_SMALLEST_SIDE`."""
    scales = [_similarity(a, b) for a, b in zip(original, _pyramid(images), strict=True)]
    terms = [structure for _, structure in scales[:-1]] + [scales[-1][0]]
    product = jnp.ones(())
    for term, weight in zip(terms, SCALE_WEIGHTS, strict=True):
        product = product * jax.nn.relu(term) ** weight
    return jnp.minimum(product.mean(axis=-1), 1)
