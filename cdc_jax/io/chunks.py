"""Chunks of a `.cdc` file of format 2: data that a reader may skip, each with its own checksum.

  bytes   content
  1       number of chunks, 0 to 127
  then for each chunk, in strictly ascending order of the types:
  4       type, ASCII letters and digits
  1..4    length n in bytes, a varint
  n       data
  4       CRC-32 (zlib's) of type and data, big-endian

So each set of chunks has exactly one encoding. A reader skips the types that it does not know.
"""

import zlib
from dataclasses import dataclass

from cdc_jax.errors import BitstreamError
from cdc_jax.io.varint import MAX_VARINT, pack_varint, unpack_varint

TYPE_BYTES = 4
MAX_CHUNKS = 127

_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Chunk:
    """One chunk.

    Attributes:
      type: 4 ASCII letters and digits.
      data: at most 2^28 - 1 bytes.
    """

    type: bytes
    data: bytes


def pack_chunks(chunks: tuple[Chunk, ...]) -> bytes:
    """Encodes chunks in canonical order.

    Raises:
      ValueError: a type is invalid or occurs twice, or there are too many chunks or too much data.
    """
    packed = bytearray([len(chunks)]) if len(chunks) <= MAX_CHUNKS else None
    if packed is None or len({chunk.type for chunk in chunks}) != len(chunks):
        raise ValueError(f"A file has at most {MAX_CHUNKS} chunks, no two of one type.")
    for chunk in sorted(chunks, key=lambda chunk: chunk.type):
        if not _is_type(chunk.type) or len(chunk.data) > MAX_VARINT:
            raise ValueError(f"A chunk has a type of {TYPE_BYTES} letters and at most {MAX_VARINT} bytes.")
        checksum = zlib.crc32(chunk.type + chunk.data)
        packed += chunk.type + pack_varint(len(chunk.data)) + chunk.data + checksum.to_bytes(_CHECKSUM_BYTES, "big")
    return bytes(packed)


def unpack_chunks(data: bytes, position: int) -> tuple[tuple[Chunk, ...], int]:
    """Decodes the chunks at `position` of `data`. Returns them and the position after them.

    Raises:
      BitstreamError: the chunks are cut off or not in canonical order, or a checksum is wrong.
    """
    if position >= len(data):
        raise BitstreamError("The file ends inside its header: it is corrupt.")
    count, position = data[position], position + 1
    if count > MAX_CHUNKS:
        raise BitstreamError("The file declares too many chunks: it is corrupt.")
    chunks: list[Chunk] = []
    for _ in range(count):
        kind = bytes(data[position : position + TYPE_BYTES])
        length, start = unpack_varint(data, position + TYPE_BYTES)
        position = start + length + _CHECKSUM_BYTES
        if position > len(data) or not _is_type(kind) or (chunks and chunks[-1].type >= kind):
            raise BitstreamError("The file's chunks are cut off or out of order: it is corrupt.")
        content = bytes(data[start : start + length])
        if zlib.crc32(kind + content).to_bytes(_CHECKSUM_BYTES, "big") != data[start + length : position]:
            raise BitstreamError(f"The checksum of the file's chunk {kind.decode()} is wrong: it is corrupt.")
        chunks.append(Chunk(kind, content))
    return tuple(chunks), position


def _is_type(kind: bytes) -> bool:
    return len(kind) == TYPE_BYTES and kind.isalnum() and kind.isascii()
