"""The Karhunen–Loève transform (principal components) of the training images' patches, which initializes the transform.

The choice of patches depends only on (seed, image), and sums of their products are exact, so the same images have the
same moments on every machine. A run computes its KLT once, at step 0; afterwards its checkpoints hold the weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.data.sources import ImageSource
from cdc_jax.errors import ConfigError, ImageError
from cdc_jax.io.images import Image
from cdc_jax.models.config import LATENT_STRIDE
from cdc_jax.models.transform import PATCH_VALUES

_MOST_IMAGES = 4096  # patches are drawn from at most this many images
_LEAST_PATCHES_PER_VALUE = 4
_LEAST_VARIANCE = 1e-6  # of the last component, for values in [−1, 1]: a deviation of an eighth of a gray level


class KLT(NamedTuple):
    """An orthonormal basis and the standard deviations of its coefficients, largest first.

    Attributes:
      basis: a column per component, for 16×16×3 patches in [−1, 1] flattened row by row. Each column's entry of largest
        magnitude is positive.
      deviations: the root mean square of each component's coefficients, descending.
    """

    basis: Float[np.ndarray, "768 c"]
    deviations: Float[np.ndarray, " c"]


def image_klt(source: ImageSource, components: int, *, patches: int, seed: int) -> KLT:
    """The KLT of 16×16 patches of a source's images.

    Args:
      source: the training images. Unreadable ones, and those below 16×16 pixels, are skipped.
      components: c, at most 768.
      patches: the number of patches, drawn evenly from all images, or from 4096 of them if there are more.
      seed: the seed for choosing images and patches.

    Raises:
      ConfigError: the images are too few, too small or too flat for that number of components.
    """
    order = np.random.default_rng(seed).permutation(len(source))[:_MOST_IMAGES]
    per_image = -(-patches // max(len(order), 1))
    moments, count = np.zeros((PATCH_VALUES, PATCH_VALUES)), 0
    for record in order.tolist():
        try:
            image = source.read(record, 0)
        except ImageError:
            continue  # the data pipeline counts and reports unreadable images
        if min(image.shape[:2]) >= LATENT_STRIDE:
            drawn = _draw_patches(image, per_image, np.random.default_rng([seed, record]))
            moments += drawn.T @ drawn
            count += per_image
    if count < _LEAST_PATCHES_PER_VALUE * PATCH_VALUES or components > PATCH_VALUES:
        raise ConfigError(
            f"The transform's KLT needs {_LEAST_PATCHES_PER_VALUE * PATCH_VALUES} patches of 16×16 pixels for at most "
            f"{PATCH_VALUES} components, not {count} for {components}: raise init.klt_patches, or add images."
        )
    return klt_of_moments(moments / (count * 255.0**2), components)


def klt_of_moments(moments: Float[np.ndarray, "n n"], components: int) -> KLT:
    """The eigenvectors of a matrix of second moments with the largest eigenvalues.

    Raises:
      ConfigError: fewer than `components` eigenvalues (variances) exceed 1e-6.
    """
    values, vectors = np.linalg.eigh(moments)
    values, basis = values[::-1][:components], vectors[:, ::-1][:, :components]
    if not values[-1] > _LEAST_VARIANCE:
        raise ConfigError(
            f"The training images are too flat for the KLT: fewer than {components} components have any variance."
        )
    largest = np.argmax(np.abs(basis), axis=0)
    signs = np.sign(basis[largest, np.arange(components)])
    return KLT(basis * signs, np.sqrt(values))


def _draw_patches(image: Image, count: int, random: np.random.Generator) -> Float[np.ndarray, "count 768"]:
    """Patches at random positions: integers from −255 to 255 in float64, so that sums of their products are exact."""
    tops, lefts = (random.integers(0, size - LATENT_STRIDE + 1, count) for size in image.shape[:2])
    offsets: Int[np.ndarray, " 16"] = np.arange(LATENT_STRIDE)
    rows = tops[:, None, None] + offsets[:, None]
    columns = lefts[:, None, None] + offsets
    return 2.0 * image[rows, columns].reshape(count, PATCH_VALUES) - 255.0
