import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.errors import BitstreamError
from cdc_jax.io.cdc_file import MAGIC, MAX_LEVEL, MAX_SIDE, Container, pack, unpack
from cdc_jax.io.chunks import Chunk
from tests.io.containers import FINGERPRINT, check_body, check_truncations_and_flipped_bits, sealed, sides
from tests.io.test_chunks import chunk_sets

levels = st.integers(0, MAX_LEVEL)


@given(sides, sides, levels, chunk_sets, st.binary(max_size=50))
def test_round_trip(height, width, level, chunks, stream):
    data = pack(FINGERPRINT, height, width, stream, level=level, chunks=chunks)
    ordered = tuple(sorted(chunks, key=lambda chunk: chunk.type))
    container = unpack(data)
    assert container == Container(2, FINGERPRINT, height, width, stream, level, ordered)
    assert container.quality == level / 256
    assert len(data) - len(stream) - sum(8 + 4 + len(chunk.data) for chunk in chunks) <= 23


def test_the_layout_never_changes():
    data = pack(FINGERPRINT, 512, 768, b"\xaa\xbb", level=9536)
    assert data.hex() == "c3444302" + "01020304" + "8004" + "8006" + "2540" + "00" + "aabb" + "3a822be4"
    data = pack(FINGERPRINT, 1, 1, b"\xaa", chunks=(Chunk(b"abcd", b"!"),))
    chunk = "61626364" + "01" + "21" + "f4365dec"
    assert data.hex() == "c3444302" + "01020304" + "0101" + "0000" + "01" + chunk + "aa" + "516dd325"


def test_the_overhead_is_at_most_23_bytes():
    assert len(pack(FINGERPRINT, MAX_SIDE, MAX_SIDE, b"stream", level=MAX_LEVEL)) - len(b"stream") == 23
    assert len(pack(FINGERPRINT, 512, 768, b"stream", level=0)) - len(b"stream") == 19


def test_format_2_is_written_only_if_needed():
    assert unpack(pack(FINGERPRINT, 9, 9, b"abc")).version == 1
    assert unpack(pack(FINGERPRINT, 9, 9, b"abc", level=0)).version == 2
    chunk = Chunk(b"abcd", b"")
    assert unpack(pack(FINGERPRINT, 9, 9, b"abc", chunks=(chunk,))) == Container(
        2, FINGERPRINT, 9, 9, b"abc", 0, (chunk,)
    )
    assert unpack(pack(FINGERPRINT, 9, 9, b"abc")).chunks == ()


@pytest.mark.parametrize("level", [-1, MAX_LEVEL + 1])
def test_pack_refuses_levels(level):
    with pytest.raises(ValueError, match="quality"):
        pack(FINGERPRINT, 9, 9, b"", level=level)


def test_every_level_that_16_bits_hold():
    """Levels up to quality 100 are read; all others are refused as corrupt."""
    for level in range(1 << 16):
        data = sealed(MAGIC + b"\x02" + FINGERPRINT + b"\x05\x05" + level.to_bytes(2, "big") + b"\0" + b"stream")
        if level <= MAX_LEVEL:
            assert unpack(data).level == level
        else:
            with pytest.raises(BitstreamError, match="quality above 100"):
                unpack(data)


def test_every_truncation_and_every_flipped_bit():
    data = pack(FINGERPRINT, 300, 70, b"some stream", level=12345, chunks=(Chunk(b"abcd", b"data"),))
    check_truncations_and_flipped_bits(data, "checksum")


def test_every_truncation_with_a_right_checksum():
    """Up to the end of the chunks they are refused; after it the stream is shorter, which its decoder detects."""
    data = pack(FINGERPRINT, 300, 70, b"some stream", level=12345, chunks=(Chunk(b"abcd", b"data"),))
    header = len(data) - len(b"some stream") - 4
    for length in range(4, len(data) - 4):
        if length < header:
            with pytest.raises(BitstreamError, match="cut off|ends inside|checksum"):
                unpack(sealed(data[:length]))
        else:
            assert unpack(sealed(data[:length])).stream == data[header:length]


@given(st.binary(max_size=60))
def test_random_bodies_with_a_right_checksum(body):
    check_body(2, body)


def test_chunks_of_unknown_types_are_skipped():
    """The fields around them are read correctly."""
    chunks = (Chunk(b"Zzz9", bytes(1000)), Chunk(b"new0", b"of a later version"))
    bare = unpack(pack(FINGERPRINT, 40, 50, b"stream", level=77))
    full = unpack(pack(FINGERPRINT, 40, 50, b"stream", level=77, chunks=chunks))
    fields = ("fingerprint", "height", "width", "stream", "level")
    assert all(getattr(bare, name) == getattr(full, name) for name in fields)


def test_the_limit_comes_before_chunks():
    """A file that declares too many pixels is refused for that reason, whatever its chunks are."""
    data = sealed(MAGIC + b"\x02" + FINGERPRINT + b"\x80\x10\x80\x10" + b"\xff\xff\xff")
    with pytest.raises(BitstreamError, match="--max-pixels"):
        unpack(data, max_pixels=2**20)
