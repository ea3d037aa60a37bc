"""EXIF, XMP and the color profile of images: from image files to chunks of a `.cdc` file, and back.

Pixels are stored upright, so the orientation is not kept. Pillow rewrites the EXIF data without the thumbnail, which
would show the original image, and without the tags that describe how a TIFF file stores its samples.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from cdc_jax.errors import BitstreamError
from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.header import file_bytes

MAX_BYTES = {"exif": 1 << 20, "icc_profile": 1 << 22, "xmp": 1 << 20}  # per part
METADATA_FORMATS = ("png", "jpeg", "webp", "tiff")  # those of `IMAGE_FORMATS` that hold all three

_TYPES = {"exif": b"EXIF", "icc_profile": b"ICCP", "xmp": b"XMPP"}
_NAMES = {"exif": "EXIF data", "icc_profile": "color profile", "xmp": "XMP data"}
_MAX_JPEG_BYTES = {"exif": 65533 - len(b"Exif\0\0"), "icc_profile": 255 * 65519, "xmp": 65504}
_EXIF_PREFIX = b"Exif\0\0"
_XMP_TAG = 700
# Orientation, and tags about a TIFF file's own samples: sizes, strips, tiles, tables, other metadata.
_LEFT_OUT = {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330}
_LEFT_OUT |= {338, 339, 340, 341, 347, 512, 513, 514, 529, 530, 531, 532, _XMP_TAG, 33723, 34377, 34675}


@dataclass(frozen=True)
class Metadata:
    """The metadata of an image file. Missing parts are empty.

    Attributes:
      exif: EXIF data from the TIFF header on, at most 1 MiB.
      icc_profile: the RGB profile of the pixels, at most 4 MiB; without one, they are sRGB.
      xmp: the XMP packet, at most 1 MiB.
    """

    exif: bytes = b""
    icc_profile: bytes = b""
    xmp: bytes = b""

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in _TYPES)


def metadata_of(pil_image: PILImage.Image, notes: list[str]) -> Metadata:
    """A loaded PIL image's EXIF and XMP data. Adds a sentence to the notes for each part that cannot be kept."""
    found = {"xmp": _upright_xmp(pil_image.info.get("xmp"))}
    try:
        found["exif"] = _upright_exif(pil_image)
    except Exception:  # whatever Pillow's parser raises for corrupt data
        notes.append("The EXIF data is corrupt and was left out.")
    for name, data in found.items():
        if len(data) > MAX_BYTES[name]:
            found[name] = b""
            notes.append(f"The {_NAMES[name]} is larger than {MAX_BYTES[name]} bytes and was left out.")
    return Metadata(**found)


def metadata_chunks(metadata: Metadata) -> tuple[Chunk, ...]:
    """A chunk for each part that is not empty."""
    parts = ((kind, getattr(metadata, name)) for name, kind in _TYPES.items())
    return tuple(Chunk(kind, data) for kind, data in parts if data)


def metadata_in(chunks: Iterable[Chunk]) -> Metadata:
    """The metadata among a file's chunks. Raises BitstreamError if a part is larger than the format allows."""
    data = {chunk.type: chunk.data for chunk in chunks}
    metadata = Metadata(**{name: data.get(kind, b"") for name, kind in _TYPES.items()})
    for field in fields(metadata):
        if len(getattr(metadata, field.name)) > MAX_BYTES[field.name]:
            raise BitstreamError(f"The file's {_NAMES[field.name]} is too large: the file is corrupt.")
    return metadata


def read_metadata(source: str | os.PathLike[str] | bytes) -> Metadata:
    """The metadata that a `.cdc` file carries; needs no model.

    Args:
      source: the file's path, or its bytes.

    Raises:
      BitstreamError: the file cannot be read, or is not valid.
    """
    return metadata_in(cdc_file.unpack(file_bytes(source)).chunks)


def fit_metadata(metadata: Metadata, format: str) -> tuple[Metadata, list[str]]:
    """The part of the metadata that a format of `IMAGE_FORMATS` can hold, and notes on the rest."""
    if format not in METADATA_FORMATS:
        left_out = [name for name in _TYPES if getattr(metadata, name)]
    else:
        left_out = [name for name, most in _MAX_JPEG_BYTES.items() if len(getattr(metadata, name)) > most]
        left_out = left_out if format == "jpeg" else []
        if metadata.exif and not _is_exif(metadata.exif):
            left_out.append("exif")
    were, it = ("was", "it") if len(left_out) == 1 else ("were", "them")
    notes = [f"The {_list(left_out)} {were} left out, since {format} cannot hold {it}."] if left_out else []
    return replace(metadata, **dict.fromkeys(left_out, b"")), notes


def save_options(metadata: Metadata, format: str) -> dict[str, Any]:
    """Arguments of `PIL.Image.Image.save` that write metadata, which must fit the format."""
    options = {}
    if metadata.icc_profile:
        options["icc_profile"] = metadata.icc_profile
    if format == "tiff":
        exif = PILImage.Exif()
        exif.load(metadata.exif)
        if metadata.xmp:
            exif[_XMP_TAG] = metadata.xmp
        # Pillow compresses through libtiff, with which it writes no EXIF and GPS directories.
        return {**options, "exif": exif, "compression": "raw"} if exif else options
    if metadata.exif:
        options["exif"] = _EXIF_PREFIX + metadata.exif
    if metadata.xmp and format == "png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata.xmp)
    elif metadata.xmp:
        options["xmp"] = metadata.xmp
    return options


def _upright_exif(pil_image: PILImage.Image) -> bytes:
    original, exif = pil_image.getexif(), PILImage.Exif()
    if not original:
        return b""
    exif.load(original.tobytes())  # a copy: the image may be the caller's
    for tag in _LEFT_OUT & set(exif):
        del exif[tag]
    return exif.tobytes().removeprefix(_EXIF_PREFIX) if exif else b""


def _upright_xmp(xmp: bytes | str | None) -> bytes:
    data = xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else b""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[0-9]", rb"\g<1>1", data)


def _is_exif(data: bytes) -> bool:
    try:
        exif = PILImage.Exif()
        exif.load(data)
        return bool(exif.tobytes())
    except Exception:
        return False


def _list(names: Sequence[str]) -> str:
    *first, last = (_NAMES[name] for name in names)
    return f"{', '.join(first)} and {last}" if first else last
