"""The Fréchet distance between patches of two sets of images, as HiFiC measures it.

    d² = ‖μ₁ - μ₂‖² + Tr(C₁ + C₂ - 2 (C₁ C₂)^½)

μ and C are the mean and sample covariance (with divisor n - 1) of the features of all 256×256 patches. These form two
grids: one starts at the image's corner, the other is shifted by 128 pixels in both directions. Heusel et al., "GANs
Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017; Mentzer et al.,
"High-Fidelity Generative Image Compression", NeurIPS 2020. It may be called FID only with Inception features.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from cdc_jax.io.images import Image

PATCH_SIDE = 256


def patches(image: Image) -> UInt8[np.ndarray, "n 256 256 3"]:
    """All patches of an image, row by row: first those of the grid at the corner, then those of the shifted grid.

    Pixels that do not fill a patch are left out. If a side is shorter than 256 pixels, there are no patches (n = 0).
    """
    squares = []
    for start in (0, PATCH_SIDE // 2):
        for top in range(start, image.shape[0] - PATCH_SIDE + 1, PATCH_SIDE):
            for left in range(start, image.shape[1] - PATCH_SIDE + 1, PATCH_SIDE):
                squares.append(image[top : top + PATCH_SIDE, left : left + PATCH_SIDE])
    return np.stack(squares) if squares else np.zeros((0, PATCH_SIDE, PATCH_SIDE, 3), np.uint8)


def frechet_distance(features_a: Float[np.ndarray, "n d"], features_b: Float[np.ndarray, "m d"]) -> float:
    """d² between the Gaussians fitted to two sets of features, computed in float64; at least 0.

    The trace of (C₁ C₂)^½ is the sum of the singular values of R₁ R₂ᵀ, where Cᵢ = Rᵢᵀ Rᵢ. So no matrix root is needed,
    and no regularization if there are fewer features than dimensions.

    Raises:
      ValueError: a set has fewer than two features, or the sets have different dimensions.
    """
    if features_a.shape[1:] != features_b.shape[1:] or min(len(features_a), len(features_b)) < 2:
        raise ValueError(f"Features of shapes {features_a.shape} and {features_b.shape} cannot be compared.")
    mean_a, root_a = _gaussian(features_a)
    mean_b, root_b = _gaussian(features_b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    squared = np.sum((mean_a - mean_b) ** 2) + np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross
    return float(max(squared, 0.0))


def _gaussian(features: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "k d"]]:
    """The mean, and R such that Rᵀ R is the covariance."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    return mean, np.linalg.qr((features - mean) / np.sqrt(len(features) - 1), mode="r")
