import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.errors import BitstreamError
from cdc_jax.io.cdc_file import MAGIC, MAX_SIDE, Container, counted_pixels, pack, unpack
from tests.io.containers import FINGERPRINT, check_body, check_truncations_and_flipped_bits, sealed, sides


@given(fingerprint=st.binary(min_size=4, max_size=4), height=sides, width=sides, stream=st.binary(max_size=50))
def test_round_trip(fingerprint, height, width, stream):
    data = pack(fingerprint, height, width, stream)
    assert unpack(data) == Container(1, fingerprint, height, width, stream)
    assert len(data) - len(stream) <= 20


def test_the_layout_never_changes():
    data = pack(FINGERPRINT, 512, 768, b"\xaa\xbb")
    assert data.hex() == "c3444301" + "01020304" + "8004" + "8006" + "aabb" + "251c234c"
    assert int.from_bytes(data[-4:], "big") == zlib.crc32(data[:-4])
    assert pack(FINGERPRINT, 1, 127, b"")[8:-4].hex() == "017f"
    assert len(pack(FINGERPRINT, MAX_SIDE, MAX_SIDE, b"")) == 20


def test_the_magic_is_not_valid_text():
    with pytest.raises(UnicodeDecodeError):
        MAGIC.decode("utf-8")


def test_every_truncation_and_every_flipped_bit():
    data = pack(FINGERPRINT, 300, 70, b"some stream")
    check_truncations_and_flipped_bits(data, "corrupt")


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(data):
    with pytest.raises(BitstreamError):
        unpack(data)


@given(st.binary(max_size=40))
def test_random_bodies_with_a_right_checksum(body):
    check_body(1, body)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a .cdc file"),
        (b"hello", "not a .cdc file"),
        (b"CDC\x01" + bytes(30), "not a .cdc file"),
        (MAGIC, "cut off"),
        (MAGIC + b"\x01\x01\x02\x03\x04", "cut off"),
        (pack(FINGERPRINT, 9, 9, b"abc") + b"\0", "checksum"),
        (pack(FINGERPRINT, 9, 9, b"abc")[1:], "not a .cdc file"),
        (sealed(MAGIC + b"\x03" + bytes(20)), "version 3.*upgrade"),
        (sealed(MAGIC + b"\xff" + bytes(20)), "version 255.*upgrade"),
        (MAGIC + b"\x03" + bytes(20), "checksum"),
        (sealed(MAGIC + b"\x00" + bytes(20)), "version 0"),
        (sealed(MAGIC + b"\x01" + FINGERPRINT + b"\x00\x05"), "empty image"),
        (sealed(MAGIC + b"\x01" + FINGERPRINT + b"\x05\x00"), "empty image"),
        (sealed(MAGIC + b"\x01" + FINGERPRINT + b"\x85\x00\x05"), "shortest"),
        (sealed(MAGIC + b"\x01" + FINGERPRINT + b"\x85\x80"), "inside its header"),
        (sealed(MAGIC + b"\x01" + FINGERPRINT + b"\x80\x80\x80\x80\x08" * 2), "implausible"),
    ],
)
def test_messages_name_the_error(data, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(data)


def test_limit_on_pixels():
    data = pack(FINGERPRINT, 1000, 2000, b"")
    assert unpack(data, max_pixels=2_000_000).width == 2000
    with pytest.raises(BitstreamError, match="2000x1000 pixels.*--max-pixels"):
        unpack(data, max_pixels=1_999_999)
    with pytest.raises(BitstreamError, match="--max-pixels"):
        unpack(pack(FINGERPRINT, MAX_SIDE, MAX_SIDE, b""), max_pixels=2**28)


def test_narrow_images_count_with_their_padding():
    assert counted_pixels(1, 1) == 4096 and counted_pixels(1, 100_000) == 6_400_000
    assert unpack(pack(FINGERPRINT, 1, 1, b""), max_pixels=1).height == 1
    with pytest.raises(BitstreamError, match="--max-pixels"):
        unpack(pack(FINGERPRINT, 1, 2**20, b""), max_pixels=2**20)


@pytest.mark.parametrize(("height", "width"), [(0, 1), (1, 0), (-1, 1), (1, MAX_SIDE + 1)])
def test_pack_refuses_sizes(height, width):
    with pytest.raises(ValueError, match="sides"):
        pack(FINGERPRINT, height, width, b"")


def test_pack_refuses_fingerprints():
    with pytest.raises(ValueError, match="4 bytes"):
        pack(b"abc", 1, 1, b"")


def test_imports_neither_numpy_nor_jax(request):
    script = "import sys, cdc_jax.io.cdc_file; assert not {'numpy', 'jax', 'constriction'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=request.config.rootpath, timeout=60)
