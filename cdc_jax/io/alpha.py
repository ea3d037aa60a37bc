"""The alpha channel of a `.cdc` file: a lossless chunk of type ALPH.

Its data is a lossless WebP file, or a PNG file if a side is too long for WebP. It is read back only if it is exactly
such a file, of the image's size, so that a small file cannot request much memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PILImage

from cdc_jax.errors import BitstreamError
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.pillow_files import open_header

Alpha = UInt8[np.ndarray, "h w"]

ALPHA_TYPE = b"ALPH"
OPAQUE = 255

_MAX_WEBP_SIDE = 16383
_PNG_START = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 13, b"IHDR")
_GRAY_8_BITS = bytes([8, 0, 0, 0, 0])  # bit depth, color type, compression, filter, no interlace
_VP8L_SIGNATURE = 0x2F


def alpha_chunks(alpha: Alpha | None) -> tuple[Chunk, ...]:
    """The chunk for an alpha channel, 0 (transparent) to 255; empty if there is no channel or every pixel is opaque."""
    if alpha is None or (alpha == OPAQUE).all():
        return ()
    gray, buffer = PILImage.fromarray(np.ascontiguousarray(alpha)), io.BytesIO()
    if max(alpha.shape) <= _MAX_WEBP_SIDE:
        gray.save(buffer, "WEBP", lossless=True)
    else:
        gray.save(buffer, "PNG", optimize=True)
    return (Chunk(ALPHA_TYPE, buffer.getvalue()),)


def read_alpha(chunks: Iterable[Chunk], height: int, width: int) -> Alpha | None:
    """The alpha channel among a file's chunks; None if there is none, so that every pixel is opaque.

    Raises:
      BitstreamError: the chunk is not such a channel, of exactly this size.
    """
    data = next((chunk.data for chunk in chunks if chunk.type == ALPHA_TYPE), None)
    if data is None:
        return None
    if _is_gray_png(data, height, width):
        format = "PNG"
    elif _is_lossless_webp(data, height, width):
        format = "WEBP"
    else:
        raise BitstreamError(
            f"The file's alpha channel is not a gray PNG or lossless WebP of {width}x{height} pixels: it is corrupt."
        )
    try:
        with open_header(io.BytesIO(data), [format]) as image:
            pixels = np.asarray(image)
    except MemoryError:
        raise
    except Exception:  # for corrupt files, Pillow raises OSError, SyntaxError, struct.error, …
        raise BitstreamError("The file's alpha channel cannot be decoded: it is corrupt.") from None
    if pixels.ndim == 3 and not (pixels == pixels[..., :1]).all():
        raise BitstreamError("The file's alpha channel is not gray: it is corrupt.")
    return np.array(pixels if pixels.ndim == 2 else pixels[..., 0])


def add_alpha(image: UInt8[np.ndarray, "h w 3"], alpha: Alpha | None) -> UInt8[np.ndarray, "h w 4"]:
    """Converts RGB to RGBA, opaque without a channel."""
    return np.dstack([image, np.full(image.shape[:2], OPAQUE, np.uint8) if alpha is None else alpha])


def _is_gray_png(data: bytes, height: int, width: int) -> bool:
    """Whether its header says that it is one, and there are no chunks other than IHDR, IDAT and IEND."""
    if not data.startswith(_PNG_START + struct.pack(">II", width, height) + _GRAY_8_BITS):
        return False
    position, kind = len(_PNG_START) - 8, b""
    while position + 12 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            return False
    return kind == b"IEND" and position == len(data)


def _is_lossless_webp(data: bytes, height: int, width: int) -> bool:
    """Whether it is one VP8L chunk with this size. Pillow allocates the canvas that a WebP file declares."""
    if len(data) < 26:
        return False
    riff, riff_bytes, webp, kind, length, signature, bits = struct.unpack_from("<4sI4s4sIBI", data)
    form = (riff, webp, kind, signature) == (b"RIFF", b"WEBP", b"VP8L", _VP8L_SIGNATURE)
    whole = riff_bytes == len(data) - 8 and length + length % 2 == len(data) - 20
    return form and whole and bits == (width - 1) | (height - 1) << 14  # alpha and version bits are zero
