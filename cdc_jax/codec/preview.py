"""The preview of an image, Tᵀ(ŷ): one matrix product in NumPy, without a network."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from cdc_jax.codec.bundle import Bundle
from cdc_jax.models.config import LATENT_STRIDE

_ROWS = 16  # rows of y that are computed at once, so that little memory is needed beyond the image


def preview(
    y_hat: Float[np.ndarray, "h w c"], synthesis: Float[np.ndarray, "c 768"]
) -> UInt8[np.ndarray, "16*h 16*w 3"]:
    """The inverse transform of ŷ as an image, sRGB.

    Args:
      y_hat: the normalized latents.
      synthesis: Tᵀ, which maps c coefficients to a patch of 16×16 pixels with 3 channels.
    """
    side, (height, width, _) = LATENT_STRIDE, y_hat.shape
    image = np.empty((height * side, width * side, 3), np.uint8)
    for top in range(0, height, _ROWS):
        patches = y_hat[top : top + _ROWS] @ synthesis
        rows = patches.reshape(-1, width, side, side, 3).swapaxes(1, 2).reshape(-1, width * side, 3)
        pixels = np.floor(np.clip((rows + 1) * np.float32(127.5) + np.float32(0.5), 0, 255))
        image[top * side : top * side + len(rows)] = pixels.astype(np.uint8)
    return image


def synthesis_matrix(bundle: Bundle) -> Float[np.ndarray, "c 768"] | None:
    """A model's Tᵀ for normalized latents, or None without a transform."""
    if not bundle.config.transform:
        return None
    synthesis, deviations = (
        np.asarray(bundle.params[f"compressor.transform.{name}"]) for name in ("synthesis", "deviations")
    )
    return deviations[:, None] * synthesis
