"""Reads and writes image files. An image is always uint8 [h, w, 3]: sRGB, upright, 0 to 255, without alpha.

Reading converts everything to that form: EXIF orientation, colour profiles, grey, palette, CMYK, 16 bits. A note
reports what is lost, such as alpha and all frames but the first. Pillow and NumPy only, no JAX.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PILImage
from PIL import ImageCms, UnidentifiedImageError

from cdc_jax.errors import ImageError, reason_of
from cdc_jax.io.files import IMAGE_FORMATS, IMAGE_SUFFIXES, MAX_PIXELS, image_format, write_atomically
from cdc_jax.io.image_folders import image_formats

Image = UInt8[np.ndarray, "h w 3"]
Source = str | os.PathLike[str] | bytes | BinaryIO

_SAVE_OPTIONS = {
    "png": {},
    "jpeg": {"quality": 95, "subsampling": 0},  # 4:4:4
    "webp": {"lossless": True},
    "tiff": {"compression": "tiff_deflate"},
    "bmp": {},
}
_TRANSPOSE = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC = 258, 262
_PILLOW_LIMIT = threading.Lock()


class ImageWarning(UserWarning):
    """A part of an image file was ignored: the alpha channel, further frames, a corrupt colour profile."""


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Reads an image file in any format that Pillow reads.

    Args:
      source: a path, the file's bytes, or a binary stream, which need not be seekable.
      max_pixels: files with a larger height × width are refused before they are decoded.

    Returns:
      uint8 [h, w, 3], sRGB, upright (EXIF orientation applied), 0 to 255.

    Raises:
      ImageError: the file is missing, unreadable, in an unknown format, corrupt, or larger than `max_pixels`.

    Warns:
      ImageWarning: alpha channel dropped, only the first frame read, corrupt colour profile ignored.
    """
    image, notes = load_image(source, max_pixels=max_pixels)
    for note in notes:
        warnings.warn(note, ImageWarning, stacklevel=2)
    return image


def load_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> tuple[Image, list[str]]:
    """`read_image`, but returns its warnings as sentences instead of issuing them."""
    name = _name_of(source)
    notes: list[str] = []
    with _opened(source, name) as stream:
        pil_image = _open(stream, name, max_pixels)
        if getattr(pil_image, "is_animated", False):
            notes.append("Only the first of several frames was read.")
        image = _as_array(pil_image, name, notes)
    return image, [f"{name}{note}" for note in notes]


def from_pil(pil_image: PILImage.Image) -> Image:
    """Converts a PIL image as `read_image` converts a file. Of several frames, it converts the current one.

    Returns:
      uint8 [h, w, 3], sRGB, upright, 0 to 255.

    Raises:
      ImageError: the image's file is truncated or corrupt, or its samples have no defined range.

    Warns:
      ImageWarning: alpha channel dropped, corrupt colour profile ignored.
    """
    notes, info = [], pil_image.info
    try:
        image = _as_array(pil_image, "", notes)
    finally:
        pil_image.info = info
    for note in notes:
        warnings.warn(note, ImageWarning, stacklevel=2)
    return image


def _as_array(pil_image: PILImage.Image, name: str, notes: list[str]) -> Image:
    """Upright sRGB pixels. Empties the PIL image's `info`."""
    try:
        pil_image.load()
        return np.array(_to_srgb(_upright(pil_image), notes), np.uint8)
    except (ImageError, MemoryError) as error:
        raise type(error)(f"{name}{error}") from None
    except Exception as error:  # on corrupt files Pillow raises OSError, SyntaxError, struct.error, KeyError, …
        raise ImageError(f"{name}This image is truncated or corrupt ({reason_of(error)}).") from None


def encode_image(image: Image, format: str) -> bytes:
    """Encodes an image to the bytes of a file, lossless except for JPEG (quality 95 without chroma subsampling).

    Args:
      image: uint8 [h, w, 3], sRGB, h and w ≥ 1.
      format: a key of `cdc_jax.io.files.IMAGE_FORMATS`.

    Raises:
      ImageError: the image has another type or shape, the format is unknown, or it does not allow this size.
    """
    if format not in IMAGE_FORMATS:
        raise ImageError(f"{format!r} is not an image format that can be written: use {', '.join(IMAGE_FORMATS)}.")
    check_image(image)
    buffer = io.BytesIO()
    try:
        PILImage.fromarray(np.ascontiguousarray(image)).save(buffer, format.upper(), **_SAVE_OPTIONS[format])
    except (OSError, ValueError, SystemError) as error:
        height, width, _ = image.shape
        size = f"{width}x{height} pixels"
        raise ImageError(f"An image of {size} cannot be written as {format} ({reason_of(error)}).") from None
    return buffer.getvalue()


def write_image(path: str | os.PathLike[str], image: Image, *, format: str | None = None) -> None:
    """Writes an image file, completely or not at all.

    Args:
      path: the file.
      image: uint8 [h, w, 3], sRGB, h and w ≥ 1.
      format: a key of `cdc_jax.io.files.IMAGE_FORMATS`; by default that of the path's suffix.

    Raises:
      ImageError: as `encode_image`; also for an unknown suffix, or a path that cannot be written to.
    """
    format = format or image_format(path)
    if format is None:
        raise ImageError(f"{os.fspath(path)}: The suffix names no image format; use {', '.join(IMAGE_SUFFIXES)}.")
    data = encode_image(image, format)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ImageError(f"{os.fspath(path)}: Cannot be written: {reason_of(error)}.") from None


def check_image(image: Image) -> None:
    """Raises ImageError unless `image` is a NumPy array uint8 [h, w, 3] with h, w ≥ 1."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        kind = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"An image is a NumPy array of uint8 [height, width, 3], not {kind}.")
    if 0 in image.shape:
        raise ImageError(f"An image has at least one pixel, this one is {image.shape[1]}x{image.shape[0]}.")


def pad_to_multiple(image: Image, multiple: int = 64) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Pads an image to multiples of `multiple` pixels by repeating its last row and column. Raises as `check_image`."""
    check_image(image)
    height, width, _ = image.shape
    return np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def _name_of(source: Source) -> str:
    """The beginning of messages about a source: its name and a colon, or nothing."""
    if isinstance(source, (str, os.PathLike)):
        return f"{os.fspath(source)}: "
    name = getattr(source, "name", None)
    return f"{name}: " if isinstance(name, str) else ""


@contextlib.contextmanager
def _opened(source: Source, name: str) -> Iterator[BinaryIO]:
    """A seekable stream of the source's bytes."""
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(source, bytes):
                stream = io.BytesIO(source)
            else:
                stream = stack.enter_context(open(source, "rb")) if isinstance(source, (str, os.PathLike)) else source
                if not stream.seekable():  # pipes
                    stream = io.BytesIO(stream.read())
        except IsADirectoryError:
            raise ImageError(f"{name}This is a folder, not an image.") from None
        except OSError as error:
            raise ImageError(f"{name}Cannot be read: {reason_of(error)}.") from None
        yield stream


def _open(stream: BinaryIO, name: str, max_pixels: int) -> PILImage.Image:
    """Reads only the header, and refuses images that are too large."""
    # Pillow's own limit against decompression bombs is global, and below ours. It is off while a header is read.
    with _PILLOW_LIMIT:
        pillow_limit, PILImage.MAX_IMAGE_PIXELS = PILImage.MAX_IMAGE_PIXELS, None
        try:
            pil_image = PILImage.open(stream, formats=image_formats())
        except UnidentifiedImageError:
            raise ImageError(f"{name}This is not an image in a format that Pillow reads, or it is corrupt.") from None
        except MemoryError:
            raise
        except Exception as error:  # see load_image
            raise ImageError(f"{name}This image is truncated or corrupt ({reason_of(error)}).") from None
        finally:
            PILImage.MAX_IMAGE_PIXELS = pillow_limit
    width, height = pil_image.size
    if width * height > max_pixels:
        raise ImageError(f"{name}{width}x{height} pixels exceed the limit of {max_pixels}; raise it (--max-pixels).")
    if width * height == 0:
        raise ImageError(f"{name}This image has no pixels.")
    return pil_image


def _upright(pil_image: PILImage.Image) -> PILImage.Image:
    """Applies the EXIF orientation. For TIFF, Pillow has already applied it and removed the tag."""
    try:
        orientation = pil_image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # corrupt EXIF does not make the pixels unreadable
        return pil_image
    return pil_image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else pil_image


def _to_srgb(pil_image: PILImage.Image, notes: list[str]) -> PILImage.Image:
    """Converts any mode to RGB. Applies a colour profile if there is one; otherwise RGB and grey count as sRGB."""
    if pil_image.mode in ("I", "F") or pil_image.mode.startswith("I;16"):
        pil_image = _scale_to_8_bits(pil_image)
    if pil_image.has_transparency_data:
        notes.append("The alpha channel was dropped.")
    profile = pil_image.info.get("icc_profile")
    pil_image.info = {}  # transparency entries would affect the conversions below
    if pil_image.mode in ("RGBa", "La"):  # premultiplied
        pil_image = pil_image.convert("RGBA" if pil_image.mode == "RGBa" else "LA")
    if pil_image.mode in ("1", "LA"):
        pil_image = pil_image.convert("L")
    elif pil_image.mode not in ("L", "CMYK", "LAB"):
        pil_image = pil_image.convert("RGB")
    if profile or pil_image.mode == "LAB":
        try:
            return _apply_profile(pil_image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append("The embedded colour profile is corrupt or does not fit, and was ignored.")
    return pil_image.convert("RGB")


def _scale_to_8_bits(pil_image: PILImage.Image) -> PILImage.Image:
    """Scales grey of 16 or 12 bits to 8 bits (mode L), which Pillow's own conversion would clip at 255."""
    values = np.asarray(pil_image).astype(np.int64 if pil_image.mode != "F" else np.float64)
    tags = getattr(pil_image, "tag_v2", {})
    full_scale = 4095 if tuple(np.atleast_1d(tags.get(_TIFF_BITS_PER_SAMPLE, 16))) == (12,) else 65535
    if pil_image.mode == "F" or values.min() < 0 or values.max() > full_scale:
        raise ImageError("Samples of 32 bits or with a sign have no defined range; convert the image to 8 or 16 bits.")
    if pil_image.mode.startswith("I;16") and tags.get(_TIFF_PHOTOMETRIC) == 0:
        # White is zero: Pillow inverts only 8-bit images.
        values = full_scale - values
    grey = PILImage.fromarray(((values * 255 + full_scale // 2) // full_scale).astype(np.uint8))
    grey.info = pil_image.info
    return grey


def _apply_profile(pil_image: PILImage.Image, profile: bytes | None) -> PILImage.Image:
    """Converts to sRGB by the colour profile: relative colorimetric with black point compensation."""
    source = ImageCms.createProfile("LAB") if pil_image.mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if pil_image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
        pil_image = pil_image.convert("RGB")
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if pil_image.mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE  # the optimized conversion of grey is off by up to 10 of 255
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        pil_image.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags,
    )
    if pil_image.mode == "L":
        ramp = PILImage.fromarray(np.arange(256, dtype=np.uint8)[None])
        table = np.asarray(ImageCms.applyTransform(ramp, transform))[0]
        return PILImage.fromarray(table[np.asarray(pil_image)])
    return ImageCms.applyTransform(pil_image, transform)
