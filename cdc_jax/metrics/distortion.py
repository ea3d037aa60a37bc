"""Pixel-wise distortion: peak signal-to-noise ratio of RGB and of luma, in dB.

    PSNR = 10 log₁₀(255² / mean squared error)

The squared error is averaged over all samples of an image before the logarithm is taken.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from cdc_jax.io.images import Image
from cdc_jax.metrics.layers import spatial_mean

# Luma weights in thousandths: ITU-R BT.601 at full range, as in JPEG files. Luma is an integer, not rounded to 8 bits.
_LUMA = (299, 587, 114)


def psnr_db(reference: Image, decoded: Image) -> float:
    """Peak signal-to-noise ratio over the three RGB channels, in dB; infinite for equal images."""
    error = np.mean((reference.astype(np.float64) - decoded.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _db(difference: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    return 10 * jnp.log10(255.0**2 / spatial_mean(difference**2).mean(axis=-1))  # x / 0 is infinite, as intended


def _luma_thousandths(images: UInt8[Array, "b h w 3"]) -> Int[Array, "b h w 1"]:
    red, green, blue = (weight * images[..., i].astype(jnp.int32) for i, weight in enumerate(_LUMA))
    return (red + green + blue)[..., None]


@jax.jit
def reference_rgb(_, image: UInt8[Array, "1 h w 3"]) -> UInt8[Array, "1 h w 3"]:
    """The original itself, for `compare_rgb`."""
    return image


@jax.jit
def compare_rgb(_, original: UInt8[Array, "1 h w 3"], images: UInt8[Array, "b h w 3"]) -> Float[Array, " b"]:
    """PSNR of each image over the three RGB channels, in dB."""
    return _db(original.astype(jnp.float32) - images.astype(jnp.float32))


@jax.jit
def reference_luma(_, image: UInt8[Array, "1 h w 3"]) -> Int[Array, "1 h w 1"]:
    """The luma of the original in thousandths, for `compare_luma`."""
    return _luma_thousandths(image)


@jax.jit
def compare_luma(_, original: Int[Array, "1 h w 1"], images: UInt8[Array, "b h w 3"]) -> Float[Array, " b"]:
    """PSNR of each image's luma, in dB."""
    return _db((original - _luma_thousandths(images)).astype(jnp.float32) / 1000)
