import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.errors import BitstreamError
from cdc_jax.io.chunks import MAX_CHUNKS, Chunk, pack_chunks, unpack_chunks
from cdc_jax.io.varint import pack_varint
from tests.io.containers import check_one_encoding, check_truncations

letters = st.sampled_from([bytes([b]) for b in b"09AZaz"])
types = st.lists(letters, min_size=4, max_size=4).map(b"".join)
chunk_sets = st.dictionaries(types, st.binary(max_size=200), max_size=5).map(
    lambda chunks: tuple(Chunk(kind, data) for kind, data in chunks.items())
)


def packed(*chunks: tuple[bytes, bytes], count: int | None = None) -> bytes:
    """Encodes chunks in this order with correct checksums, as another program might."""
    body = b"".join(k + pack_varint(len(d)) + d + zlib.crc32(k + d).to_bytes(4, "big") for k, d in chunks)
    return bytes([len(chunks) if count is None else count]) + body


@given(chunk_sets, st.binary(max_size=20), st.binary(max_size=20))
def test_round_trip_anywhere(chunks, before, after):
    data = pack_chunks(chunks)
    ordered = tuple(sorted(chunks, key=lambda chunk: chunk.type))
    assert unpack_chunks(before + data + after, len(before)) == (ordered, len(before) + len(data))
    assert pack_chunks(chunks[::-1]) == data  # one way to write a set


def test_the_layout_never_changes():
    assert pack_chunks(()).hex() == "00"
    data = pack_chunks((Chunk(b"exif", b"\x01\x02"), Chunk(b"ICCP", b"")))
    assert data.hex() == "02" + "49434350" + "00" + "05bbb600" + "65786966" + "02" + "0102" + "dd38cb32"
    assert data == packed((b"ICCP", b""), (b"exif", b"\x01\x02"))


@given(chunk_sets)
def test_every_truncation(chunks):
    check_truncations(unpack_chunks, pack_chunks(chunks))


@given(st.binary(max_size=40))
def test_random_bytes(data):
    check_one_encoding(pack_chunks, unpack_chunks, data)


def test_every_flipped_bit():
    """Each is refused, or reads as chunks that encode to the same bytes, which happens only in the number of chunks."""
    data = pack_chunks((Chunk(b"ab12", b"some data"), Chunk(b"zz99", b"more")))
    harmless = set()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        try:
            chunks, end = unpack_chunks(bytes(flipped), 0)
        except BitstreamError:
            continue
        assert pack_chunks(chunks) == flipped[:end]
        harmless.add(bit)
    assert harmless == {6}  # 0 chunks; what follows would be the stream


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends inside"),
        (b"\x80", "too many"),
        (b"\xff" + bytes(2000), "too many"),
        (b"\x01", "ends inside"),
        (b"\x01abcd", "ends inside"),
        (b"\x01abcd\x05abc", "cut off"),
        (b"\x01abcd\xff\xff\xff\x7f" + bytes(50), "cut off"),
        (b"\x01abcd\xff\xff\xff\xff\x7f" + bytes(50), "implausible size, beyond 268435455: it is corrupt"),
        (packed((b"abcd", b"x"), (b"abcd", b"x")), "out of order"),
        (packed((b"abcd", b"x"), (b"abcd", b"y")), "out of order"),
        (packed((b"b000", b""), (b"a000", b"")), "out of order"),
        (packed((b"ab d", b"")), "out of order|type"),
        (packed((b"ab\xe9d", b"")), "out of order|type"),
        (packed((b"\0\0\0\0", b"")), "out of order|type"),
        (packed((b"abcd", b"x"), count=2), "ends inside"),
        (packed((b"abcd", b"some data")).replace(b"some", b"Some"), "checksum.*abcd"),
        (packed((b"abcd", b"some data")).replace(b"abcd", b"abce"), "checksum.*abce"),
    ],
)
def test_messages_state_the_error(data, message):
    with pytest.raises(BitstreamError, match=message) as raised:
        unpack_chunks(data, 0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "chunks",
    [
        (Chunk(b"abc", b""),),
        (Chunk(b"abcde", b""),),
        (Chunk(b"ab-d", b""),),
        (Chunk(b"ab\xe9d", b""),),
        (Chunk(b"abcd", b"1"), Chunk(b"abcd", b"2")),
        tuple(Chunk(b"%04d" % i, b"") for i in range(MAX_CHUNKS + 1)),
    ],
)
def test_pack_refuses(chunks):
    with pytest.raises(ValueError, match="chunk"):
        pack_chunks(chunks)


def test_the_largest_number_of_chunks():
    chunks = tuple(Chunk(b"%04d" % i, bytes([i])) for i in range(MAX_CHUNKS))
    assert unpack_chunks(pack_chunks(chunks), 0)[0] == chunks


def test_declared_lengths_allocate_nothing():
    data = b"\x7f" + b"abcd\xff\xff\xff\x7f" * 50
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError):
            unpack_chunks(data, 0)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20_000
