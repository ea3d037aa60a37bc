import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.errors import BitstreamError
from cdc_jax.io.varint import MAX_VARINT, pack_varint, unpack_varint
from tests.io.containers import check_one_encoding, check_truncations

values = st.one_of(st.integers(0, 300), st.integers(0, MAX_VARINT))


@given(values, st.binary(max_size=5), st.binary(max_size=5))
def test_round_trip_anywhere(value, before, after):
    packed = pack_varint(value)
    assert unpack_varint(before + packed + after, len(before)) == (value, len(before) + len(packed))
    assert len(packed) == max(1, -(-value.bit_length() // 7)) <= 4


@pytest.mark.parametrize(
    ("value", "packed"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001"), (MAX_VARINT, "ffffff7f")],
)
def test_the_layout_never_changes(value, packed):
    assert pack_varint(value).hex() == packed


@given(values)
def test_every_truncation(value):
    check_truncations(unpack_varint, pack_varint(value), "ends inside")


@given(st.binary(max_size=6))
def test_a_value_has_one_encoding(data):
    check_one_encoding(pack_varint, unpack_varint, data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends inside"),
        (b"\x80", "ends inside"),
        (b"\x80\x00", "shortest"),
        (b"\xff\xff\xff\x00", "shortest"),
        (b"\x80\x80\x80\x80\x01", "implausible"),
        (b"\xff" * 9, "implausible"),
    ],
)
def test_other_bytes(data, message):
    with pytest.raises(BitstreamError, match=message):
        unpack_varint(data, 0)
