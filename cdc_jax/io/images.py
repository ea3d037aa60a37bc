"""Reads and writes image files. An image is always uint8 [h, w, 3]: sRGB, upright, 0 to 255, without alpha.

Reading converts everything to that form: EXIF orientation, color profiles, gray, palette, CMYK, 16 bits.
`read_contents` also returns alpha and metadata. A note reports what is lost, such as all frames but the first. Needs
only Pillow and NumPy, no JAX.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PILImage

from cdc_jax.errors import ImageError, reason_of
from cdc_jax.io.alpha import Alpha
from cdc_jax.io.files import IMAGE_FORMATS, IMAGE_SUFFIXES, LOSSY_FORMATS, MAX_PIXELS, image_format, write_atomically
from cdc_jax.io.metadata import Metadata, fit_metadata, metadata_of, save_options
from cdc_jax.io.pillow_files import bits_per_sample, open_image, unreadable
from cdc_jax.io.srgb import profile_to_srgb, split_alpha, to_rgb, upright

Image = UInt8[np.ndarray, "h w 3"]
ImageWithAlpha = UInt8[np.ndarray, "h w 4"]
Source = str | os.PathLike[str] | bytes | BinaryIO

ALPHA_FORMATS = ("png", "webp", "tiff")  # those of `IMAGE_FORMATS` that hold an alpha channel

_SAVE_OPTIONS = {
    "png": {},
    "jpeg": {"quality": 95, "subsampling": 0},  # 4:4:4
    "webp": {"lossless": True, "exact": True},
    "tiff": {"compression": "tiff_deflate"},
    "bmp": {},
}
_DROPPED_ALPHA = "The alpha channel was dropped."
_FIRST_FRAME = "Only the first of several frames was read."
_ROUNDED = " bits a sample were rounded to 8."


class ImageWarning(UserWarning):
    """A part of an image file was ignored: alpha, further frames, bits beyond 8, metadata, a corrupt color profile."""


class ImageContents(NamedTuple):
    """The contents of an image file.

    Attributes:
      pixels: uint8 [h, w, 3], upright; in the color profile of `metadata` if there is one, else in sRGB.
      alpha: uint8 [h, w], 0 (transparent) to 255; None if every pixel is opaque.
      metadata: EXIF, XMP and profile, if they were requested.
      notes: what was left out, as sentences.
      bits: bits per sample in the file. More than 8 are rounded to 8, which a note reports.
    """

    pixels: Image
    alpha: Alpha | None = None
    metadata: Metadata = Metadata()
    notes: tuple[str, ...] = ()
    bits: int = 8

    @property
    def notes_but_rounding(self) -> tuple[str, ...]:
        """`notes` without the one about samples of more than 8 bits."""
        return tuple(note for note in self.notes if not note.endswith(_ROUNDED))


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
      ImageWarning: alpha channel dropped, only the first frame read, more than 8 bits per sample rounded to 8, corrupt
        color profile ignored.
    """
    image, notes = load_image(source, max_pixels=max_pixels)
    for note in notes:
        warnings.warn(note, ImageWarning, stacklevel=2)
    return image


def load_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> tuple[Image, list[str]]:
    """`read_image`, but returns its warnings as sentences instead of issuing them."""
    contents = read_contents(source, max_pixels=max_pixels)
    dropped = [] if contents.alpha is None else [f"{_name_of(source)}{_DROPPED_ALPHA}"]
    return contents.pixels, [*contents.notes, *dropped]


def read_contents(source: Source, *, max_pixels: int = MAX_PIXELS, keep_metadata: bool = False) -> ImageContents:
    """Reads an image file with its alpha channel and, if requested, its metadata. Raises like `read_image`.

    Args:
      source, max_pixels: as `read_image`.
      keep_metadata: read EXIF, XMP and the color profile. The pixels of an RGB image then stay in its RGB profile; all
        others are converted to sRGB.
    """
    name = _name_of(source)
    with _opened(source, name) as stream:
        return _contents(open_image(stream, name, max_pixels), name, keep_metadata)


def image_size(source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of an image file as stored, from its header. Raises like `read_image`."""
    name = _name_of(source)
    with _opened(source, name) as stream, open_image(stream, name, max_pixels) as pil_image:
        return pil_image.height, pil_image.width


def from_pil(pil_image: PILImage.Image, *, keep_metadata: bool = False) -> ImageContents:
    """Converts a PIL image as `read_contents` converts a file. Of several frames, it converts the current one.

    Raises:
      ImageError: the image's file is truncated or corrupt, or its samples have no defined range.
    """
    info = pil_image.info
    try:
        contents = _contents(pil_image, "", keep_metadata)
    finally:
        pil_image.info = info
    return contents._replace(notes=tuple(note for note in contents.notes if note != _FIRST_FRAME))


def _contents(pil_image: PILImage.Image, name: str, keep_metadata: bool) -> ImageContents:
    """Converts a PIL image. Empties its `info`."""
    notes = []
    try:
        if getattr(pil_image, "is_animated", False):  # this looks for a second frame
            notes.append(_FIRST_FRAME)
        bits = bits_per_sample(pil_image)
        pil_image.load()
        metadata = metadata_of(pil_image, notes) if keep_metadata else Metadata()
        pil_image = upright(pil_image)
        alpha = split_alpha(pil_image)
        pil_image, profile = to_rgb(pil_image, notes, keep_profile=keep_metadata)
        pixels = np.array(pil_image, np.uint8)
    except (ImageError, MemoryError) as error:
        raise type(error)(f"{name}{error}") from None
    except Exception as error:
        raise unreadable(error, name) from None
    notes += [f"{bits}{_ROUNDED}"] if bits > 8 else []
    notes = tuple(name + note for note in notes)
    return ImageContents(pixels, alpha, replace(metadata, icc_profile=profile), notes, bits)


def encode_image(
    image: Image | ImageWithAlpha, format: str, metadata: Metadata | None = None, quality: int | None = None
) -> bytes:
    """Encodes an image to the bytes of a file, lossless except for JPEG (quality 95 without chroma subsampling).

    Args:
      image: uint8 [h, w, 3 or 4], h and w ≥ 1, in the profile of the metadata or sRGB. Formats without an alpha channel
        get only the colors.
      format: a key of `cdc_jax.io.files.IMAGE_FORMATS`.
      metadata: written as far as the format can hold it. Pixels are converted to sRGB if the format holds no profile.
      quality: 1 to 100, for `LOSSY_FORMATS`; WebP is then lossy.

    Raises:
      ImageError: the image has another type or shape, the format is unknown, or it does not allow this size or quality.
    """
    if format not in IMAGE_FORMATS:
        raise ImageError(f"{format!r} is not an image format that can be written: use {', '.join(IMAGE_FORMATS)}.")
    check_image(image, channels=(3, 4))
    options = _SAVE_OPTIONS[format]
    if quality is not None:
        if format not in LOSSY_FORMATS or not 1 <= quality <= 100:
            formats = " and ".join(LOSSY_FORMATS)
            raise ImageError(f"quality is {quality}; it must be 1 to 100, for the formats {formats}.")
        options = {**options, "lossless": False, "quality": quality}
    metadata = metadata or Metadata()
    fitting, _ = fit_metadata(metadata, format)
    pil_image = PILImage.fromarray(np.ascontiguousarray(image if format in ALPHA_FORMATS else image[..., :3]))
    if metadata.icc_profile and not fitting.icc_profile:
        pil_image = profile_to_srgb(pil_image, metadata.icc_profile)
    buffer = io.BytesIO()
    try:
        pil_image.save(buffer, format.upper(), **{**options, **save_options(fitting, format)})
    except (OSError, ValueError, SystemError) as error:
        size = f"{image.shape[1]}x{image.shape[0]} pixels"
        raise ImageError(f"An image of {size} cannot be written as {format} ({reason_of(error)}).") from None
    return buffer.getvalue()


def lost_in(format: str, *, alpha: bool, metadata: Metadata) -> list[str]:
    """What `encode_image` leaves out of a file of this format, as sentences."""
    dropped = [_DROPPED_ALPHA[:-1] + f", since {format} has none."] if alpha and format not in ALPHA_FORMATS else []
    return [*dropped, *fit_metadata(metadata, format)[1]]


def write_image(
    path: str | os.PathLike[str],
    image: Image | ImageWithAlpha,
    *,
    format: str | None = None,
    metadata: Metadata | None = None,
    quality: int | None = None,
) -> None:
    """Writes an image file, completely or not at all.

    Args:
      path: the file.
      image, metadata, quality: as `encode_image`.
      format: a key of `cdc_jax.io.files.IMAGE_FORMATS`; by default that of the path's suffix.

    Raises:
      ImageError: as `encode_image`; also for an unknown suffix, or a path that cannot be written to.

    Warns:
      ImageWarning: the format cannot hold the alpha channel or some of the metadata.
    """
    format = format or image_format(path)
    if format is None:
        raise ImageError(f"{os.fspath(path)}: The suffix names no image format; use {', '.join(IMAGE_SUFFIXES)}.")
    data = encode_image(image, format, metadata, quality)
    for note in lost_in(format, alpha=image.shape[2] == 4, metadata=metadata or Metadata()):
        warnings.warn(f"{os.fspath(path)}: {note}", ImageWarning, stacklevel=2)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ImageError(f"{os.fspath(path)}: Cannot be written: {reason_of(error)}.") from None


def check_image(image: Image, channels: Collection[int] = (3,)) -> None:
    """Raises ImageError unless `image` is a NumPy array uint8 [h, w, c], with h, w ≥ 1 and c one of `channels`."""
    well_formed = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    if not well_formed or image.shape[2] not in channels:
        kind = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        numbers = " or ".join(map(str, channels))
        raise ImageError(f"An image is a NumPy array of uint8 [height, width, {numbers}], not {kind}.")
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
