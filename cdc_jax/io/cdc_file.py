"""The container of `.cdc` files: a small header, the entropy coder's stream, a checksum. Standard library only.

  bytes   content
  3       magic: C3 44 43, "CDC" with the first letter's high bit set (not valid UTF-8)
  1       format version: 1 or 2
  4       fingerprint of the coding model (`CodingModel.fingerprint`)
  1..4    height in pixels  } varints (`cdc_jax.io.varint`), 1 to 2^28 - 1
  1..4    width in pixels   }
  format 2 only:
  2       level: the quality in units of 1/256, big-endian; 0 to 25600
  1       number of chunks, 0 to 127
  ...     the chunks (`cdc_jax.io.chunks`)
  n       stream (see `cdc_jax.entropy.coder`)
  4       CRC-32 (zlib's) of all bytes before it, big-endian

A file of format 1 has at most 20 bytes more than its stream; a file of format 2 has at most 23 bytes more than its
stream and chunks. Every later format version keeps the magic, version byte and checksum in their positions, so that an
old reader can distinguish a newer file from a corrupt one.
"""

import zlib
from dataclasses import dataclass, replace

from cdc_jax.errors import BitstreamError
from cdc_jax.io.chunks import Chunk, pack_chunks, unpack_chunks
from cdc_jax.io.varint import pack_varint, unpack_varint

MAGIC = b"\xc3DC"
VERSIONS = (1, 2)
FINGERPRINT_BYTES = 4
MAX_SIDE = (1 << 28) - 1
QUALITY_STEPS = 256  # per unit of quality
MAX_LEVEL = 100 * QUALITY_STEPS

_CHECKSUM_BYTES = 4
_FIXED_BYTES = len(MAGIC) + 1 + FINGERPRINT_BYTES
_MIN_BYTES = _FIXED_BYTES + 2 + _CHECKSUM_BYTES
_QUALITY_BYTES = 2
_BLOCK = 64  # images are padded to multiples of 64 pixels


@dataclass(frozen=True)
class Container:
    """The fields of a file.

    Attributes:
      version: the format version.
      fingerprint: 4 bytes that identify the coding model that the stream needs.
      height, width: the image's size in pixels, 1 to 2^28 - 1.
      stream: the entropy coder's bytes.
      level: the quality in units of 1/256, 0 to 25600; 0 in format 1.
      chunks: the file's chunks; empty in format 1.
    """

    version: int
    fingerprint: bytes
    height: int
    width: int
    stream: bytes
    level: int = 0
    chunks: tuple[Chunk, ...] = ()

    @property
    def quality(self) -> float:
        """The quality, 0 to 100."""
        return self.level / QUALITY_STEPS


def pack(
    fingerprint: bytes,
    height: int,
    width: int,
    stream: bytes,
    *,
    level: int | None = None,
    chunks: tuple[Chunk, ...] = (),
) -> bytes:
    """Returns the bytes of a file, in format 1 without a level and chunks, otherwise in format 2.

    The arguments are the attributes of `Container`.

    Raises:
      ValueError: a side outside 1 to 2^28 - 1, a level outside 0 to 25600, a fingerprint that is not 4 bytes, or two
        chunks of one type.
    """
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"A fingerprint has {FINGERPRINT_BYTES} bytes, not {len(fingerprint)}.")
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"An image's sides must be in 1 to {MAX_SIDE}, not {height}x{width}.")
    if level is not None and not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"A quality must be in 0 to {MAX_LEVEL}/{QUALITY_STEPS}, not {level}/{QUALITY_STEPS}.")
    version, extension = 1, b""
    if level is not None or chunks:
        version, extension = 2, (level or 0).to_bytes(_QUALITY_BYTES, "big") + pack_chunks(chunks)
    header = MAGIC + bytes([version]) + fingerprint + pack_varint(height) + pack_varint(width)
    body = header + extension + stream
    return body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")


def unpack(data: bytes, *, max_pixels: int | None = None) -> Container:
    """Reads the fields of a file. Allocates memory only for copies of its stream and chunks.

    Args:
      data: the bytes of the file.
      max_pixels: images with more `counted_pixels` are refused; None: no limit.

    Raises:
      BitstreamError: the file is empty, too short, not a `.cdc` file, of a newer version, corrupt, or too large.
    """
    return _fields(*_checked(data), max_pixels)


def unpack_header(start: bytes) -> Container:
    """Reads the fields of a file from its beginning alone, without verifying its checksum. The stream is empty.

    Args:
      start: at least the first bytes of the file, up to the end of its chunks.

    Raises:
      BitstreamError: it is not a `.cdc` file, is of a newer version, is corrupt, or is incomplete.
    """
    if start[: len(MAGIC)] != MAGIC:
        raise BitstreamError("This is not a .cdc file.")
    version = start[len(MAGIC)] if len(start) >= _MIN_BYTES else 0
    if version not in VERSIONS:
        raise BitstreamError("The file is cut off, corrupt, or of a newer version.")
    return replace(_fields(version, start, None), stream=b"")


def _fields(version: int, body: bytes, max_pixels: int | None) -> Container:
    """The fields of a file of a known version, from the bytes before its checksum."""
    height, position = unpack_varint(body, _FIXED_BYTES)
    width, position = unpack_varint(body, position)
    if height == 0 or width == 0:
        raise BitstreamError(f"The file declares an empty image of {width}x{height} pixels.")
    if max_pixels is not None and counted_pixels(height, width) > max(max_pixels, _BLOCK * _BLOCK):
        raise BitstreamError(
            f"The file declares {width}x{height} pixels, more than the limit of {max_pixels}: raise --max-pixels."
        )
    level, chunks = 0, ()
    if version > 1:
        level, position = int.from_bytes(body[position : position + _QUALITY_BYTES], "big"), position + _QUALITY_BYTES
        if level > MAX_LEVEL:
            raise BitstreamError("The file declares a quality above 100: it is corrupt.")
        chunks, position = unpack_chunks(body, position)
    fingerprint = bytes(body[len(MAGIC) + 1 : _FIXED_BYTES])
    return Container(version, fingerprint, height, width, bytes(body[position:]), level, chunks)


def _checked(data: bytes) -> tuple[int, bytes]:
    """The format version, and the bytes before the checksum, after checking magic, checksum and version."""
    if not data:
        raise BitstreamError("The file is empty.")
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise BitstreamError("This is not a .cdc file.")
    if len(data) < _MIN_BYTES:
        raise BitstreamError("The file is too short to be a whole .cdc file: it was cut off.")
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    intact = zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") == checksum
    version = data[len(MAGIC)]
    if intact and version > VERSIONS[-1]:
        raise BitstreamError(f"The file has format version {version}, written by a newer version: upgrade cdc_jax.")
    if not intact:
        raise BitstreamError("The file's checksum is wrong: it was cut off or corrupted.")
    if version not in VERSIONS:
        raise BitstreamError(f"There is no format version {version}: the file is corrupt.")
    return version, body


def counted_pixels(height: int, width: int) -> int:
    """The number of pixels that a limit applies to. Sides count as at least 64, to which images are padded."""
    return max(height, _BLOCK) * max(width, _BLOCK)
