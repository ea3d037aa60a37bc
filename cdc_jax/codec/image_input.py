"""Converts the types that `Codec.compress` accepts as an image."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image as PILImage

from cdc_jax.errors import ImageError
from cdc_jax.io import cdc_file
from cdc_jax.io.images import Image, check_image, from_pil, read_image
from cdc_jax.models.config import STRIDE

ImageLike = Image | str | os.PathLike[str] | PILImage.Image  # also any array that NumPy converts to uint8 [h, w, 3]

_ARRAY_PROTOCOLS = ("__array__", "__array_interface__")


def as_image(image: ImageLike, max_pixels: int) -> Image:
    """Converts an image to a NumPy array, uint8 [h, w, 3].

    Args:
      image: an array (NumPy, JAX or any with NumPy's array protocol), the path of an image file, or a PIL image. Files
        and PIL images are converted as `read_image` does.
      max_pixels: images with a larger height × width are refused.

    Raises:
      TypeError: the image has an unsupported type.
      ImageError: an array of another dtype or shape, a file that cannot be read, or a larger image.
    """
    if isinstance(image, str | os.PathLike):
        image = read_image(image, max_pixels=max_pixels)
    elif isinstance(image, PILImage.Image):
        _check_size(image.height, image.width, max_pixels)
        image = from_pil(image)
    elif isinstance(image, memoryview) or any(hasattr(image, name) for name in _ARRAY_PROTOCOLS):
        image = np.asarray(image)
    else:
        raise TypeError(
            "An image is a uint8 array [height, width, 3], the path of an image file, or a PIL image, not "
            f"{type(image).__name__}; `cdc_jax.read_image` reads bytes and binary streams."
        )
    check_image(image)
    _check_size(*image.shape[:2], max_pixels)
    return image


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if cdc_file.counted_pixels(height, width) > max(max_pixels, STRIDE**2):
        raise ImageError(f"The image has {width}x{height} pixels, more than the limit of {max_pixels}.")
