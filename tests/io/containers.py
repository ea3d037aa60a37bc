"""Containers with a right checksum, and damaged ones."""

import zlib

import pytest
from hypothesis import strategies as st

from cdc_jax.errors import BitstreamError
from cdc_jax.io.cdc_file import MAX_SIDE, unpack

FINGERPRINT = b"\x01\x02\x03\x04"
sides = st.one_of(st.integers(1, 300), st.integers(1, MAX_SIDE))


def sealed(body: bytes) -> bytes:
    """These bytes and their checksum."""
    return body + zlib.crc32(body).to_bytes(4, "big")


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
