"""The `.cdc` file: a small header, the entropy coder's stream, a checksum. Standard library only.

  bytes   content
  3       magic: C3 44 43, "CDC" with the first letter's high bit set (not valid UTF-8)
  1       format version: 1
  4       fingerprint of the coding model (`CodingModel.fingerprint`)
  1..4    height in pixels  } unsigned LEB128: 7 bits a byte, lowest first, the high bit set in all bytes but the
  1..4    width in pixels   } last; shortest form only; 1 to 2^28 - 1
  n       stream (see `cdc_jax.entropy.coder`)
  4       CRC-32 (zlib's) of all bytes before it, big-endian

At most 20 bytes beyond the stream. Every later format version keeps the magic, the version byte and the checksum where
they are, so that an old reader can tell a newer file from a damaged one.
"""

import zlib
from dataclasses import dataclass

from cdc_jax.errors import BitstreamError

MAGIC = b"\xc3DC"
VERSION = 1
FINGERPRINT_BYTES = 4
MAX_SIDE = (1 << 28) - 1

_CHECKSUM_BYTES = 4
_FIXED_BYTES = len(MAGIC) + 1 + FINGERPRINT_BYTES
_MIN_BYTES = _FIXED_BYTES + 2 + _CHECKSUM_BYTES
_VARINT_BYTES = 4
_BLOCK = 64  # a picture is coded in whole blocks of 64x64 pixels


@dataclass(frozen=True)
class Container:
    """A file's fields.

    Attributes:
      version: format version.
      fingerprint: 4 bytes, of the coding model that the stream needs.
      height, width: of the picture in pixels, 1 to 2^28 - 1.
      stream: the entropy coder's bytes.
    """

    version: int
    fingerprint: bytes
    height: int
    width: int
    stream: bytes


def pack(fingerprint: bytes, height: int, width: int, stream: bytes) -> bytes:
    """A complete file. Raises ValueError for a side outside 1 to 2^28 - 1 or a fingerprint that is not 4 bytes."""
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"A fingerprint has {FINGERPRINT_BYTES} bytes, not {len(fingerprint)}.")
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"A picture's sides must lie in 1 to {MAX_SIDE}, not {height}x{width}.")
    body = MAGIC + bytes([VERSION]) + fingerprint + _pack_varint(height) + _pack_varint(width) + stream
    return body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")


def unpack(data: bytes, *, max_pixels: int | None = None) -> Container:
    """The fields of a file; allocates nothing but a copy of its stream.

    Args:
      data: the whole file.
      max_pixels: refuse a picture of more `counted_pixels`; None: no limit.

    Raises:
      BitstreamError: the file is empty, too short, of another kind, of a newer version, damaged, or too large.
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
    if intact and version > VERSION:
        raise BitstreamError(f"The file has format version {version}, written by a newer version: upgrade cdc_jax.")
    if not intact:
        raise BitstreamError("The file's checksum is wrong: it was cut off or damaged.")
    if version != VERSION:
        raise BitstreamError(f"There is no format version {version}: the file is damaged.")
    height, position = _unpack_varint(body, _FIXED_BYTES)
    width, position = _unpack_varint(body, position)
    if height == 0 or width == 0:
        raise BitstreamError(f"The file declares an empty picture of {width}x{height} pixels.")
    if max_pixels is not None and counted_pixels(height, width) > max(max_pixels, _BLOCK * _BLOCK):
        raise BitstreamError(
            f"The file declares {width}x{height} pixels, more than the limit of {max_pixels}: raise --max-pixels."
        )
    return Container(version, bytes(body[len(MAGIC) + 1 : _FIXED_BYTES]), height, width, bytes(body[position:]))


def counted_pixels(height: int, width: int) -> int:
    """What a limit on pixels is held against: a side counts as 64 at least, since coding pads to blocks of 64x64."""
    return max(height, _BLOCK) * max(width, _BLOCK)


def _pack_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _unpack_varint(data: bytes, position: int) -> tuple[int, int]:
    """The value of the varint at `position`, and the position behind it."""
    value = 0
    for i in range(_VARINT_BYTES):
        if position + i >= len(data):
            raise BitstreamError("The file ends inside its header: it is damaged.")
        byte = data[position + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise BitstreamError("The file's header is not in its shortest form: it is damaged.")
            return value, position + i + 1
    raise BitstreamError(f"The file declares an implausible size, beyond {MAX_SIDE} pixels on a side.")
