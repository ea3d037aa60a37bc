"""Containers with a right checksum, and damaged ones; properties that several readers of bytes share."""

import zlib

import pytest
from hypothesis import strategies as st

from cdc_jax.errors import BitstreamError
from cdc_jax.io.cdc_file import MAGIC, MAX_LEVEL, MAX_SIDE, pack, unpack

FINGERPRINT = b"\x01\x02\x03\x04"
sides = st.one_of(st.integers(1, 300), st.integers(1, MAX_SIDE))


def sealed(body: bytes) -> bytes:
    """These bytes and their checksum."""
    return body + zlib.crc32(body).to_bytes(4, "big")


def check_body(version: int, body: bytes) -> None:
    """With a right checksum, these bytes give fields in range, which pack to the same file, or a BitstreamError."""
    data = sealed(MAGIC + bytes([version]) + body)
    try:
        container = unpack(data)
    except BitstreamError:
        return
    assert 1 <= container.height <= MAX_SIDE and 1 <= container.width <= MAX_SIDE
    assert version == 1 or 0 <= container.level <= MAX_LEVEL
    fields = (container.fingerprint, container.height, container.width, container.stream)
    options = {} if version == 1 else {"level": container.level, "chunks": container.chunks}
    assert pack(*fields, **options) == data


def check_one_encoding(pack_part, unpack_part, data: bytes) -> None:
    """These bytes are refused, or their beginning is what the value that is read from them packs to."""
    try:
        value, end = unpack_part(data, 0)
    except BitstreamError:
        return
    assert pack_part(value) == data[:end]


def check_truncations(unpack_part, data: bytes, message: str | None = None) -> None:
    """Every beginning of these bytes is refused with a message that this pattern matches."""
    for length in range(len(data)):
        with pytest.raises(BitstreamError, match=message):
            unpack_part(data[:length], 0)


def check_truncations_and_flipped_bits(data: bytes, message: str) -> None:
    """All are refused; `message` is a pattern for what a bit that is flipped after the magic number gives."""
    for length in range(len(data)):
        with pytest.raises(BitstreamError, match="empty" if length == 0 else "cut off"):
            unpack(data[:length])
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError, match="not a .cdc file" if bit < 24 else message):
            unpack(bytes(flipped))
