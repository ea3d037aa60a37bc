"""Opens image files with Pillow: which formats, up to what size, with clear errors."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from cdc_jax.errors import ImageError, reason_of
from cdc_jax.io.image_folders import image_formats, register_heif

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_PILLOW_LIMIT = threading.Lock()
_TIFF_BITS_PER_SAMPLE = 258
# Pillow's names for how samples are stored: `I;16B`, `L;4`, `RGB;16L`. `BGR;16` means 16 bits per pixel, not sample.
_STORED_BITS = re.compile(r"(?:[IL];|(?:LA|RGB[AX]?|CMYK);(?=16[BLN]))(\d+)")


def open_image(stream: BinaryIO, name: str, max_pixels: int) -> PILImage.Image:
    """Reads only an image's header, and refuses images that are too large.

    Args:
      stream: a seekable stream of the file's bytes.
      name: the beginning of messages.
      max_pixels: height × width above which an image is refused.

    Raises:
      ImageError: the format is unknown, the header is corrupt, or there are no pixels or too many.
    """
    try:
        pil_image = open_header(stream, image_formats())
    except UnidentifiedImageError:
        if is_heif(stream) and not register_heif():
            raise ImageError(
                f"{name}This is a HEIC image, which the package pillow-heif reads: pip install '.[heif]'."
            ) from None
        raise ImageError(f"{name}This is not an image in a format that Pillow reads, or it is corrupt.") from None
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(error, name) from None
    width, height = pil_image.size
    if width * height > max_pixels:
        raise ImageError(f"{name}{width}x{height} pixels exceed the limit of {max_pixels}; raise it (--max-pixels).")
    if width * height == 0:
        raise ImageError(f"{name}This image has no pixels.")
    return pil_image


def unreadable(error: Exception, name: str) -> ImageError:
    """The error to raise for Pillow's errors about a corrupt file: OSError, SyntaxError, struct.error, KeyError, …"""
    reason = reason_of(error)
    if "truncated" in reason.lower():
        return ImageError(f"{name}This image is truncated: the end of its file is missing.")
    return ImageError(f"{name}This image is truncated or corrupt ({reason}).")


def is_heif(stream: BinaryIO) -> bool:
    """Whether a file begins like a HEIC image."""
    stream.seek(0)
    head = stream.read(12)
    return head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS


def open_header(stream: BinaryIO, formats: Sequence[str]) -> PILImage.Image:
    """`PIL.Image.open` without Pillow's own guard against decompression bombs: the caller checks the size.

    That guard is a global variable with a limit below ours, so it is turned off while a header is read.
    """
    with _PILLOW_LIMIT:
        pillow_limit, PILImage.MAX_IMAGE_PIXELS = PILImage.MAX_IMAGE_PIXELS, None
        try:
            return PILImage.open(stream, formats=formats)
        finally:
            PILImage.MAX_IMAGE_PIXELS = pillow_limit


def bits_per_sample(pil_image: PILImage.Image) -> int:
    """Bits per sample in the file of an image that is not loaded yet; 8 if Pillow does not report them.

    Pillow does not report them for color JPEG 2000 and for AVIF.
    """
    stored = [8]
    if pil_image.format == "HEIF":
        stored.append(pil_image.info.get("bit_depth", 8))
    stored += np.atleast_1d(getattr(pil_image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, 8)).tolist()
    for codec, _, _, arguments in getattr(pil_image, "tile", []):
        for argument in arguments if isinstance(arguments, tuple) else (arguments,):
            if isinstance(argument, str) and (match := _STORED_BITS.match(argument)):
                stored.append(int(match[1]))
            elif isinstance(argument, int) and codec.startswith("ppm"):
                stored.append(argument.bit_length())  # the largest sample of a color PNM file
    return 16 if max(stored) == 8 and pil_image.mode.startswith("I;16") else max(stored)
