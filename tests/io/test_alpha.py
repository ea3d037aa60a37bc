"""The alpha chunk: lossless, as small as it may be, and nothing but an alpha channel of the image's size is read."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from cdc_jax.errors import BitstreamError
from cdc_jax.io.alpha import ALPHA_TYPE, add_alpha, alpha_chunks, read_alpha
from cdc_jax.io.chunks import Chunk
from tests.helpers import python_chunks


def disc(height=60, width=90):
    y, x = np.mgrid[:height, :width]
    return np.clip(255 * (1.2 - np.hypot(y / height - 0.5, x / width - 0.5) * 2.5), 0, 255).astype(np.uint8)


def saved(alpha, format, mode="L", **options):
    buffer = io.BytesIO()
    PILImage.fromarray(alpha).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def reads(data, alpha):
    height, width = alpha.shape
    np.testing.assert_array_equal(read_alpha((Chunk(b"ZZZZ", b""), Chunk(ALPHA_TYPE, data)), height, width), alpha)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(1, 255))
def test_round_trip(height, width, seed, levels):
    alpha = np.random.default_rng(seed).integers(0, levels, (height, width), np.uint8)  # never opaque
    [chunk] = alpha_chunks(alpha)
    assert chunk.type == ALPHA_TYPE
    reads(chunk.data, alpha)


def test_opaque_images_have_no_chunk():
    opaque = np.full((5, 7), 255, np.uint8)
    assert alpha_chunks(None) == alpha_chunks(opaque) == ()
    assert read_alpha((), 5, 7) is None
    opaque[4, 6] = 254
    assert len(alpha_chunks(opaque)) == 1


def test_sides_too_long_for_webp():
    alpha = np.zeros((2, 16384), np.uint8)
    [chunk] = alpha_chunks(alpha)
    assert chunk.data.startswith(b"\x89PNG")
    reads(chunk.data, alpha)
    [chunk] = alpha_chunks(alpha[:, 1:])
    assert chunk.data.startswith(b"RIFF")
    reads(chunk.data, alpha[:, 1:])


def test_a_smooth_mask_is_small():
    assert len(alpha_chunks(disc(256, 256))[0].data) < 0.2 * 256 * 256
    assert len(alpha_chunks(np.where(disc(256, 256) > 99, 255, 0).astype(np.uint8))[0].data) < 700


def test_both_formats_are_read_at_any_size():
    alpha = disc()
    for data in (saved(alpha, "PNG"), saved(alpha, "PNG", compress_level=0), saved(alpha, "WEBP", lossless=True)):
        reads(data, alpha)


def test_the_second_decoder_reads_png_and_the_size_of_webp():
    alpha = disc()
    for level in (0, 9):
        assert python_chunks.read_png(saved(alpha, "PNG", compress_level=level)) == alpha.tolist()
    [chunk] = alpha_chunks(alpha)
    assert python_chunks.webp_size(chunk.data) == (60, 90)


def test_add_alpha():
    image, alpha = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8), disc()
    np.testing.assert_array_equal(add_alpha(image, alpha), np.concatenate([image, alpha[..., None]], axis=2))
    assert (add_alpha(image, None)[..., 3] == 255).all()


# --- bad input -------------------------------------------------------------------------------------------------------


def mislabeled_png(width, height):
    data = bytearray(saved(disc(), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def mislabeled_webp(width, height):
    data = bytearray(saved(disc(), "WEBP", lossless=True))
    data[21:25] = struct.pack("<I", width - 1 | (height - 1) << 14)
    return bytes(data)


def png_with(kind, content):
    data = saved(disc(), "PNG")
    return data[:33] + png_chunk(kind, content) + data[33:]


PNG, WEBP = saved(disc(), "PNG"), saved(disc(), "WEBP", lossless=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"\x89PNG\r\n\x1a\n",
        bytes(300),
        saved(disc(), "JPEG"),
        saved(disc(), "WEBP", quality=80),  # lossy
        saved(disc(), "WEBP", mode="LA", lossless=True, exact=True)[:-4],
        saved(disc(), "PNG", mode="RGB"),
        saved(disc(), "PNG", mode="1"),
        saved(disc(), "PNG", mode="LA"),
        saved(disc(60, 91), "PNG"),
        saved(disc(61, 90), "WEBP", lossless=True),
        saved(disc(90, 60), "PNG"),
        png_with(b"tEXt", b"a\0b"),
        png_with(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24))),  # a bomb of another kind
        PNG + b"\0",
        PNG[:-12],
        PNG[:-1],
        PNG[:33] + PNG[-12:],  # no pixels
        PNG[:41] + bytes(len(PNG) - 41 - 16) + PNG[-16:],
        WEBP[:-2],
        WEBP + b"\0\0",
        WEBP[:25] + bytes(len(WEBP) - 25),
    ],
)
def test_anything_else_is_corrupt(data):
    with pytest.raises(BitstreamError, match=r"alpha channel .*: it is corrupt\.$") as raised:
        read_alpha((Chunk(ALPHA_TYPE, data),), 60, 90)
    assert "\n" not in str(raised.value)


def test_colors_are_no_alpha_channel():
    colors = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(colors).save(buffer, "WEBP", lossless=True)
    with pytest.raises(BitstreamError, match="not gray"):
        read_alpha((Chunk(ALPHA_TYPE, buffer.getvalue()),), 60, 90)


@pytest.mark.parametrize(
    "bomb", [mislabeled_png(40000, 40000), mislabeled_png(2**31 - 1, 2**31 - 1), mislabeled_webp(16384, 16384)]
)
def test_a_bomb_is_refused_before_it_is_decoded(bomb):
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match="90x60 pixels"):
            read_alpha((Chunk(ALPHA_TYPE, bomb),), 60, 90)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


def test_more_pixels_than_declared_are_not_inflated():
    """Rows beyond the image's height: a megabyte of them in a few bytes."""
    alpha = np.zeros((4, 4), np.uint8)
    content = zlib.compress(bytes(1 << 26), 9)
    data = saved(alpha, "PNG")[:33] + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
    tracemalloc.start()
    try:
        reads(data, alpha)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_mutations_are_refused_or_give_an_alpha_channel(format):
    rng, data = np.random.default_rng(1), {"PNG": PNG, "WEBP": WEBP}[format]
    refused = 0
    for _ in range(400):
        corrupt = bytearray(data)
        for position in rng.integers(0, len(data), 2):
            corrupt[position] = rng.integers(256)
        try:
            alpha = read_alpha((Chunk(ALPHA_TYPE, bytes(corrupt)),), 60, 90)
        except BitstreamError:
            refused += 1
        else:
            assert alpha.shape == (60, 90) and alpha.dtype == np.uint8
    assert refused > 40
