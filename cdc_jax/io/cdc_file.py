"""The `.cdc` file: a small header, the entropy coder's stream, a checksum. Standard library only.

  bytes   content
  3       magic: C3 44 43, "CDC" with the first letter's high bit set (not valid UTF-8)
  1       format version: 1 or 2
  4       fingerprint of the coding model (`CodingModel.fingerprint`)
  1..4    height in pixels  } unsigned LEB128: 7 bits a byte, lowest first, the high bit set in all bytes but the
  1..4    width in pixels   } last; shortest form only; 1 to 2^28 - 1
  format 2 only:
  2       quality in units of 1/256, big-endian; 0 to 25600
  1       number of chunks, 0 to 127
  ...     the chunks (`cdc_jax.io.chunks`)
  n       stream (see `cdc_jax.entropy.coder`)
  4       CRC-32 (zlib's) of all bytes before it, big-endian

At most 20 bytes beyond the stream in format 1, 23 beyond stream and chunks in format 2. Every later format version
keeps the magic, the version byte and the checksum where they are, so that an old reader can tell a newer file from a
corrupt one.
"""

import zlib
from dataclasses import dataclass

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
_BLOCK = 64  # an image is coded in whole blocks of 64x64 pixels


@dataclass(frozen=True)
class Container:
    """A file's fields.

    Attributes:
      version: format version.
      fingerprint: 4 bytes, of the coding model that the stream needs.
      height, width: of the image in pixels, 1 to 2^28 - 1.
      stream: the entropy coder's bytes.
      level: the quality in units of 1/256, 0 to 25600; 0 in format 1.
      chunks: what the file carries besides; empty in format 1.
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
        """0 to 100."""
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
    """A complete file: of format 1 without a level and chunks, else of format 2.

    Raises:
      ValueError: a side outside 1 to 2^28 - 1, a level outside 0 to 25600, a fingerprint that is not 4 bytes, or two
        chunks of one type.
    """
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"A fingerprint has {FINGERPRINT_BYTES} bytes, not {len(fingerprint)}.")
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"An image's sides must lie in 1 to {MAX_SIDE}, not {height}x{width}.")
    if level is not None and not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"A quality must lie in 0 to {MAX_LEVEL}/{QUALITY_STEPS}, not {level}/{QUALITY_STEPS}.")
    version, extension = 1, b""
    if level is not None or chunks:
        version, extension = 2, (level or 0).to_bytes(_QUALITY_BYTES, "big") + pack_chunks(chunks)
    header = MAGIC + bytes([version]) + fingerprint + pack_varint(height) + pack_varint(width)
    body = header + extension + stream
    return body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")


def unpack(data: bytes, *, max_pixels: int | None = None) -> Container:
    """The fields of a file; allocates nothing but a copy of its stream and chunks.

    Args:
      data: the whole file.
      max_pixels: refuse an image of more `counted_pixels`; None: no limit.

    Raises:
      BitstreamError: the file is empty, too short, of another kind, of a newer version, corrupt, or too large.
    """
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


def counted_pixels(height: int, width: int) -> int:
    """What a limit on pixels is held against: a side counts as 64 at least, since coding pads to blocks of 64x64."""
    return max(height, _BLOCK) * max(width, _BLOCK)
