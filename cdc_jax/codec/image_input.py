"""Converts the types that `Codec.compress` accepts as an image."""

from __future__ import annotations

import os
import warnings

import numpy as np
from PIL import Image as PILImage

from cdc_jax.errors import ImageError
from cdc_jax.io import cdc_file
from cdc_jax.io.alpha import alpha_chunks
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.images import (
    Image,
    ImageContents,
    ImageWarning,
    ImageWithAlpha,
    check_image,
    from_pil,
    read_contents,
)
from cdc_jax.io.metadata import metadata_chunks
from cdc_jax.models.config import STRIDE

# Also any array that NumPy converts to uint8 [h, w, 3 or 4].
ImageLike = Image | ImageWithAlpha | str | os.PathLike[str] | PILImage.Image | ImageContents

_ARRAY_PROTOCOLS = ("__array__", "__array_interface__")


def as_contents(image: ImageLike, max_pixels: int, *, keep_metadata: bool = False) -> ImageContents:
    """Converts an image to a NumPy array, uint8 [h, w, 3], with its alpha channel.

    Args:
      image: an array (NumPy, JAX or any with NumPy's array protocol), the path of an image file, a PIL image, or the
        result of `read_contents`. Files and PIL images are converted as `read_image` does.
      max_pixels: images with a larger height × width are refused.
      keep_metadata: whether to read the metadata of files and PIL images.

    Raises:
      TypeError: the image has an unsupported type.
      ImageError: an array has another dtype or shape, a file cannot be read, or the image is too large.

    Warns:
      ImageWarning: only the first frame was read, or metadata or a corrupt profile was left out.
    """
    if isinstance(image, ImageContents):
        contents = image
    elif isinstance(image, str | os.PathLike):
        contents = _warned(read_contents(image, max_pixels=max_pixels, keep_metadata=keep_metadata))
    elif isinstance(image, PILImage.Image):
        _check_size(image.height, image.width, max_pixels)
        contents = _warned(from_pil(image, keep_metadata=keep_metadata))
    elif isinstance(image, memoryview) or any(hasattr(image, name) for name in _ARRAY_PROTOCOLS):
        contents = _of_array(np.asarray(image))
    else:
        raise TypeError(
            "An image is a uint8 array [height, width, 3 or 4], the path of an image file, or a PIL image, not "
            f"{type(image).__name__}; `cdc_jax.read_image` reads bytes and binary streams."
        )
    _check_size(*contents.pixels.shape[:2], max_pixels)
    return contents


def chunks_of(contents: ImageContents, *, drop_alpha: bool = False) -> tuple[Chunk, ...]:
    """The chunks of an image's file: its alpha channel, unless every pixel is opaque, and its metadata."""
    alpha = () if drop_alpha else alpha_chunks(contents.alpha)
    return (*alpha, *metadata_chunks(contents.metadata))


def _of_array(image: np.ndarray) -> ImageContents:
    check_image(image, channels=(3, 4))
    return ImageContents(image[..., :3], image[..., 3] if image.shape[2] == 4 else None)


def _warned(contents: ImageContents) -> ImageContents:
    for note in contents.notes:
        warnings.warn(note, ImageWarning, stacklevel=4)
    return contents


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if cdc_file.counted_pixels(height, width) > max(max_pixels, STRIDE**2):
        raise ImageError(f"The image has {width}x{height} pixels, more than the limit of {max_pixels}.")
