"""What format 2 adds to a file: the quality, and chunks that a reader may skip."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.errors import BitstreamError
from cdc_jax.io.cdc_file import MAGIC, MAX_LEVEL, MAX_SIDE, Container, pack, unpack
from cdc_jax.io.chunks import MAX_CHUNKS, Chunk, pack_chunks, unpack_chunks

FINGERPRINT = b"\x01\x02\x03\x04"
LETTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
types = st.lists(st.sampled_from(LETTERS), min_size=4, max_size=4).map(bytes)
chunk_sets = st.dictionaries(types, st.binary(max_size=20), max_size=5).map(
    lambda contents: tuple(Chunk(kind, contents[kind]) for kind in sorted(contents))
)


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "big")


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + bytes([len(data)]) + data + zlib.crc32(kind + data).to_bytes(4, "big")


@given(level=st.integers(0, MAX_LEVEL), chunks=chunk_sets, stream=st.binary(max_size=50))
def test_round_trip(level, chunks, stream):
    data = pack(FINGERPRINT, 300, 70, stream, level=level, chunks=chunks)
    assert unpack(data) == Container(2, FINGERPRINT, 300, 70, stream, level, chunks)
    assert unpack(data).quality == level / 256
    assert pack(FINGERPRINT, 300, 70, stream, level=level, chunks=chunks[::-1]) == data  # one order on disk


def test_the_layout_never_changes():
    chunks = (Chunk(b"text", b"hi"), Chunk(b"Exif", b""))
    data = pack(FINGERPRINT, 512, 768, b"\xaa\xbb", level=round(37.25 * 256), chunks=chunks)
    body = "c3444302" + "01020304" + "8004" + "8006" + "2540" + "02"
    body += chunk(b"Exif", b"").hex() + chunk(b"text", b"hi").hex() + "aabb"
    assert data.hex() == body + "5d09e5ac"
    assert chunk(b"text", b"hi").hex() == "74657874" + "02" + "6869" + "149a66e5"
    assert len(pack(FINGERPRINT, MAX_SIDE, MAX_SIDE, b"", level=0)) == 23


def test_format_1_has_neither():
    assert pack(FINGERPRINT, 5, 6, b"")[3] == 1
    assert pack(FINGERPRINT, 5, 6, b"", level=0)[3] == 2
    assert unpack(pack(FINGERPRINT, 5, 6, b"", chunks=(Chunk(b"Exif", b"x"),))).level == 0


def test_every_truncation_and_every_flipped_bit():
    data = pack(FINGERPRINT, 300, 70, b"some stream", level=1234, chunks=(Chunk(b"text", b"caption"),))
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            unpack(data[:length])
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            unpack(bytes(flipped))


@given(st.binary(max_size=60))
def test_random_bodies_with_a_right_checksum(body):
    """Whatever is behind a right checksum: fields in their range, the one way to write them, or a BitstreamError."""
    data = sealed(MAGIC + b"\x02" + FINGERPRINT + b"\x05\x06" + body)
    try:
        file = unpack(data)
    except BitstreamError:
        return
    assert 0 <= file.level <= MAX_LEVEL
    assert pack(FINGERPRINT, 5, 6, file.stream, level=file.level, chunks=file.chunks) == data


@pytest.mark.parametrize(
    ("extension", "message"),
    [
        (b"", "inside its header"),
        (b"\x64", "inside its header"),
        (b"\x64\x00", "inside its header"),
        (b"\x64\x01\x00", "quality above 100"),
        (b"\xff\xff\x00", "quality above 100"),
        (b"\x00\x00\x80" + bytes(99), "too many chunks"),
        (b"\x00\x00\x01", "inside its header"),
        (b"\x00\x00\x01" + chunk(b"text", b"hi")[:-1], "cut off"),
        (b"\x00\x00\x01" + b"text\xff\xff\xff\x7f" + bytes(9), "cut off"),
        (b"\x00\x00\x01" + chunk(b"te t", b"hi"), "out of order"),
        (b"\x00\x00\x01" + chunk("té1".encode(), b"hi"), "out of order"),
        (b"\x00\x00\x02" + chunk(b"text", b"") * 2, "out of order"),
        (b"\x00\x00\x02" + chunk(b"text", b"") + chunk(b"Exif", b""), "out of order"),
        (b"\x00\x00\x01" + chunk(b"text", b"hi")[:-1] + b"\x00", "chunk text is wrong"),
    ],
)
def test_messages_say_what_is_wrong(extension, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(sealed(MAGIC + b"\x02" + FINGERPRINT + b"\x05\x06" + extension))


@pytest.mark.parametrize("level", [-1, MAX_LEVEL + 1])
def test_pack_refuses_levels(level):
    with pytest.raises(ValueError, match="quality"):
        pack(FINGERPRINT, 1, 1, b"", level=level)


@pytest.mark.parametrize(
    "chunks",
    [
        (Chunk(b"text", b"a"), Chunk(b"text", b"b")),
        (Chunk(b"tex", b""),),
        (Chunk(b"te t", b""),),
        (Chunk("té1".encode(), b""),),
        tuple(Chunk(b"%04d" % number, b"") for number in range(MAX_CHUNKS + 1)),
    ],
)
def test_pack_refuses_chunks(chunks):
    with pytest.raises(ValueError, match="chunk"):
        pack(FINGERPRINT, 1, 1, b"", chunks=chunks)


def test_the_most_chunks():
    chunks = tuple(Chunk(b"%04d" % number, b"") for number in range(MAX_CHUNKS))
    packed = pack_chunks(chunks)
    assert unpack_chunks(b"before" + packed + b"after", 6) == (chunks, 6 + len(packed))
