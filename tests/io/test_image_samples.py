"""16-bit samples, alpha and several frames: reading gives 8 bits, no alpha and the first frame."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cdc_jax.errors import ImageError
from cdc_jax.io.images import ImageWarning, from_pil, load_image, read_contents, read_image
from tests.io.image_files import gray_profile, png, quietly, saved, smooth, tiff

RAMP_8 = np.arange(256, dtype=np.uint16).reshape(4, 64)
RAMP_16 = RAMP_8 * 257
RAMP_RGB = np.repeat(RAMP_8[..., None], 3, 2)


def _texts(**texts):
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    return info


RAMPS_16 = {
    "PNG": png(RAMP_16[..., None], 0),
    "TIFF, little endian": tiff(RAMP_16.astype("<u2").tobytes(), 64, 4, bits=16),
    "TIFF, big endian": tiff(RAMP_16.astype(">u2").tobytes(), 64, 4, bits=16, order=">"),
    "TIFF, white is zero": tiff((65535 - RAMP_16).astype("<u2").tobytes(), 64, 4, bits=16, photometric=0),
    "TIFF, 32 bits": tiff(RAMP_16.astype("<u4").tobytes(), 64, 4, bits=32),
    "TIFF, color": tiff((RAMP_RGB * 257).astype("<u2").tobytes(), 64, 4, bits=16, photometric=2, channels=3),
    "PNG, color": png(RAMP_RGB * 257, 2),
    "PGM": b"P5 64 4 65535\n" + RAMP_16.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", RAMPS_16)
def test_a_16_bit_ramp_reads_like_its_8_bit_twin(kind):
    twin = quietly(saved(Image.fromarray(RAMP_8.astype(np.uint8)), "PNG"))
    bits = 32 if "32 bits" in kind else 16
    np.testing.assert_array_equal(quietly(RAMPS_16[kind], bits), twin)
    assert read_contents(RAMPS_16[kind]).bits == bits


def test_16_bit_gray_is_rounded_to_the_nearest():
    every = np.arange(65536).reshape(256, 256)
    np.testing.assert_array_equal(quietly(png(every[..., None], 0), 16)[..., 0], np.floor(every / 257 + 0.5))


def test_16_bit_gray_keeps_its_profile_and_its_transparency():
    eight = saved(Image.fromarray(RAMP_8.astype(np.uint8)), "PNG", icc_profile=gray_profile(1.0))
    sixteen = png(RAMP_16[..., None], 0, profile=gray_profile(1.0))
    np.testing.assert_array_equal(quietly(sixteen, 16), quietly(eight))
    assert quietly(sixteen, 16)[2, 0, 0] > 128 + 20
    assert "alpha" in load_image(png(RAMP_16[..., None], 0, transparent=257))[1][1]


def test_12_bit_tiff():
    samples = np.arange(0, 4096, 2)
    high, low = samples[0::2], samples[1::2]
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], -1).astype(np.uint8).tobytes()
    read = quietly(tiff(packed, len(samples), 1, bits=12), 12)
    np.testing.assert_array_equal(read[0, :, 0], np.floor(samples * 255 / 4095 + 0.5))


def bmp_of_16_bits_a_pixel():
    image = io.BytesIO()
    Image.new("RGB", (4, 4)).save(image, "BMP")
    header = bytearray(image.getvalue()[:54])
    header[28] = 16
    return bytes(header) + bytes(4 * 4 * 2)


SAMPLE_BITS = {
    "PPM": (b"P6 4 4 65535\n" + bytes(96), 16),
    "PPM of 8 bits": (b"P6 4 4 255\n" + bytes(48), 8),
    "PPM of 7 bits": (b"P6 4 4 100\n" + bytes(48), 8),
    "JPEG 2000": (saved(Image.fromarray(RAMP_16), "JPEG2000"), 16),
    "BMP of 16 bits a pixel": (bmp_of_16_bits_a_pixel(), 8),
    "palette": (saved(Image.fromarray(smooth()).quantize(16), "PNG"), 8),
    "a text that looks like a depth": (saved(Image.fromarray(smooth()), "PNG", pnginfo=_texts(bit_depth="16")), 8),
}


@pytest.mark.parametrize("kind", SAMPLE_BITS)
def test_more_than_8_bits_a_sample_are_a_note(kind):
    data, bits = SAMPLE_BITS[kind]
    assert read_contents(data).bits == bits
    quietly(data, bits)


def test_heic_of_10_bits_is_a_note():
    heif = pytest.importorskip("pillow_heif", reason="the package is not installed: pip install '.[heif]'")
    data = io.BytesIO()
    heif.from_bytes(mode="RGB;16", size=(64, 64), data=bytes(64 * 64 * 6)).save(data)
    assert read_contents(data.getvalue()).bits == 10


def test_a_loaded_16_bit_image_is_a_note():
    image = Image.fromarray(RAMP_16)
    assert from_pil(image).notes == ("16 bits a sample were rounded to 8.",)


@pytest.mark.parametrize("values, sample_format", [([0, -5], 2), ([0, 70000], 1)])
def test_32_bit_samples_without_a_range_are_refused(values, sample_format):
    data = tiff(np.array(values, "<i4").tobytes(), 2, 1, bits=32, sample_format=sample_format)
    with pytest.raises(ImageError, match="32 bits"):
        read_image(data)


def test_float_samples_are_refused():
    with pytest.raises(ImageError, match="32 bits"):
        read_image(saved(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))


# --- alpha, frames ----------------------------------------------------------------------------------------------------


def transparent_palette():
    image = Image.fromarray(smooth()).quantize(16)
    return saved(image, "PNG", transparency=bytes(range(16)))


ALPHA = {
    "RGBA": (saved(Image.fromarray(np.dstack([smooth(), smooth()[..., 0]])), "PNG"), smooth()),
    "RGBA, WebP": (
        saved(Image.fromarray(np.dstack([smooth(), smooth()[..., 0]])), "WEBP", lossless=True, exact=True),
        smooth(),
    ),
    "LA": (saved(Image.fromarray(smooth()[..., :2]), "PNG"), np.repeat(smooth()[..., :1], 3, 2)),
    "16-bit RGBA": (png(np.full((3, 5, 4), 257 * 9), 6), np.full((3, 5, 3), 9)),
    "16-bit gray and alpha": (png(np.full((3, 5, 2), 257 * 9), 4), np.full((3, 5, 3), 9)),
    "palette": (transparent_palette(), np.asarray(Image.fromarray(smooth()).quantize(16).convert("RGB"))),
    "one transparent color": (saved(Image.fromarray(smooth()), "PNG", transparency=(0, 0, 0)), smooth()),
    "one transparent gray": (saved(Image.new("L", (3, 3), 7), "PNG", transparency=7), np.full((3, 3, 3), 7)),
}


@pytest.mark.parametrize("kind", ALPHA)
def test_alpha_is_dropped_with_a_warning(kind):
    data, colors = ALPHA[kind]
    with pytest.warns(ImageWarning) as warned:
        read = read_image(data)
    rounded = ["16 bits a sample were rounded to 8."] if "16-bit" in kind else []
    assert [str(warning.message) for warning in warned] == [*rounded, "The alpha channel was dropped."]
    np.testing.assert_array_equal(read, colors)


ALPHA_CHANNELS = {
    "RGBA": smooth()[..., 0],
    "RGBA, WebP": smooth()[..., 0],
    "LA": smooth()[..., 1],
    "16-bit RGBA": np.full((3, 5), 9),
    "16-bit gray and alpha": np.full((3, 5), 9),
    "palette": np.asarray(Image.fromarray(smooth()).quantize(16)),  # index i has the alpha i
    "one transparent color": np.where((smooth() == 0).all(-1), 0, 255),
    "one transparent gray": np.zeros((3, 3)),
    "one transparent 16-bit gray": np.where(RAMP_8 == 1, 0, 255),
    "one transparent 16-bit color": np.where(RAMP_8 == 9, 0, 255),
}
SEE_THROUGH = {kind: data for kind, (data, _) in ALPHA.items()} | {
    "one transparent 16-bit gray": png(RAMP_16[..., None], 0, transparent=257),
    "one transparent 16-bit color": png(RAMP_RGB * 257, 2, transparent=(9 * 257,) * 3),
}


@pytest.mark.parametrize("kind", SEE_THROUGH)
def test_alpha_is_read_beside_the_colors(kind):
    contents = read_contents(SEE_THROUGH[kind])
    assert contents.alpha.dtype == np.uint8
    assert contents.notes == (("16 bits a sample were rounded to 8.",) if "16-bit" in kind else ())
    np.testing.assert_array_equal(contents.alpha, ALPHA_CHANNELS[kind])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_an_opaque_alpha_channel_is_none(mode):
    options = {"transparency": b"\xff"} if mode == "P" else {}
    data = saved(Image.fromarray(smooth()).convert(mode), "PNG", **options)
    assert Image.open(io.BytesIO(data)).has_transparency_data
    quietly(data)
    assert read_contents(data).alpha is None


def test_alpha_is_turned_with_the_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(np.dstack([smooth(), smooth()[..., 0]])), "PNG", exif=exif)
    np.testing.assert_array_equal(read_contents(data).alpha, np.rot90(smooth()[..., 0], -1))


def test_premultiplied_alpha():
    image = Image.fromarray(np.dstack([smooth(), smooth()[..., 0]])).convert("RGBa")
    np.testing.assert_array_equal(from_pil(image).alpha, smooth()[..., 0])
    np.testing.assert_array_equal(from_pil(Image.fromarray(smooth()[..., :2]).convert("La")).alpha, smooth()[..., 1])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_only_the_first_frame_is_read_with_a_warning(format):
    first, second = Image.new("RGB", (20, 10), (250, 0, 0)), Image.new("RGB", (20, 10), (0, 0, 250))
    data = saved(first, format, save_all=True, append_images=[second])
    with pytest.warns(ImageWarning, match="first of several frames"):
        read = read_image(data)
    assert read.shape == (10, 20, 3)
    assert np.abs(read.astype(int) - (250, 0, 0)).max() <= 5


def test_notes_name_the_file(tmp_path):
    path = tmp_path / "see-through.png"
    path.write_bytes(ALPHA["RGBA"][0])
    assert load_image(path)[1] == [f"{path}: The alpha channel was dropped."]
