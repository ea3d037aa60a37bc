"""Reading brings every kind of image file to uint8 [h, w, 3] sRGB; writing gives back the same pixels."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from cdc_jax.errors import ImageError
from cdc_jax.io.files import IMAGE_FORMATS
from cdc_jax.io.images import (
    ImageWarning,
    encode_image,
    load_image,
    pad_to_multiple,
    read_image,
    write_image,
)

LOSSLESS = [name for name in IMAGE_FORMATS if name != "jpeg"]


def random_image(height=17, width=33, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height=40, width=56):
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 6 * y, 2 * (x + y)], -1).astype(np.uint8)


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def quietly(data):
    """The pixels, and the file must have given no cause for a warning."""
    image, notes = load_image(data)
    assert notes == []
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    return image


# --- writing, and reading what was written ---------------------------------------------------------------------------


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 1)])
def test_lossless_formats_give_back_the_same_pixels(format, size):
    image = random_image(*size)
    np.testing.assert_array_equal(quietly(encode_image(image, format)), image)


def test_jpeg_is_close():
    image = smooth()
    assert np.abs(quietly(encode_image(image, "jpeg")).astype(int) - image).max() <= 8


@pytest.mark.parametrize("suffix, format", [(s, f) for f, suffixes in IMAGE_FORMATS.items() for s in suffixes])
def test_the_suffix_chooses_the_format(tmp_path, suffix, format):
    path = tmp_path / f"image{suffix.upper()}"
    write_image(path, smooth())
    with Image.open(path) as opened:
        assert opened.format == format.upper()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_explicit_format_wins(tmp_path):
    write_image(tmp_path / "image", smooth(), format="bmp")
    assert (tmp_path / "image").read_bytes().startswith(b"BM")


def test_sources_may_be_paths_bytes_and_streams(tmp_path):
    image = random_image()
    path = tmp_path / "a.png"
    write_image(path, image)
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(read_image(source), image)
    pipe = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({path.read_bytes()!r})"], stdout=subprocess.PIPE
    )
    with pipe, pipe.stdout:
        np.testing.assert_array_equal(read_image(pipe.stdout), image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[[0, 0, 0]]],
    ],
)
def test_only_uint8_colour_arrays_are_written(image):
    with pytest.raises(ImageError, match="an image"):
        encode_image(image, "png")


def test_writing_names_what_cannot_be_done(tmp_path):
    image = random_image()
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(ImageError, match=r"image\.xyz: the suffix"):
        write_image(tmp_path / "image.xyz", image)
    with pytest.raises(ImageError, match="'gif' is not an image format"):
        write_image(tmp_path / "image.gif", image, format="gif")
    for place in ("missing/a.png", "file/a.png", ""):
        with pytest.raises(ImageError, match="cannot be written"):
            write_image(tmp_path / place, image, format="png")
    with pytest.raises(ImageError, match="17000x1 pixels cannot be written as webp"):
        write_image(tmp_path / "wide.webp", random_image(1, 17000))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"kept"


# --- orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format, orientation):
    upright = smooth()
    # How the camera held the sensor: the stored array from which each orientation makes the upright one.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    read = quietly(saved(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif.tobytes(), **options))
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() <= (4 if format == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 60000])
def test_an_impossible_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = smooth()
    np.testing.assert_array_equal(quietly(saved(Image.fromarray(image), "PNG", exif=exif.tobytes())), image)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_is_ignored():
    image = smooth()
    data = saved(Image.fromarray(image), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(quietly(data), image)


# --- colour ----------------------------------------------------------------------------------------------------------


def icc_profile(space, tags):
    """A display profile of version 2 from its tags: as much as a colour engine needs."""
    body, table = b"", struct.pack(">I", len(tags))
    offset = 128 + 4 + 12 * len(tags)
    for signature, data in tags:
        table += signature + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = offset + len(body)
    white = struct.pack(">iii", 63190, 65536, 54061)  # D50 in 16.16
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02100000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + white + b"\0" * 48
    assert len(header) == 128
    return header + table + body


def xyz(x, y, z):
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(v * 65536) for v in (x, y, z)))


def gamma_curve(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


DESCRIPTION = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78
WHITE = xyz(0.9642, 1.0, 0.8249)
# sRGB's primaries, adapted to D50.
RED, GREEN, BLUE = xyz(0.4361, 0.2225, 0.0139), xyz(0.3851, 0.7169, 0.0971), xyz(0.1431, 0.0606, 0.7141)


def rgb_profile(red, green, blue, gamma, curve=None):
    colorants = [(b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue)]
    curves = [(name, curve or gamma_curve(gamma)) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return icc_profile(b"RGB ", [(b"desc", DESCRIPTION), (b"wtpt", WHITE), *colorants, *curves])


def grey_profile(gamma):
    return icc_profile(b"GRAY", [(b"desc", DESCRIPTION), (b"wtpt", WHITE), (b"kTRC", gamma_curve(gamma))])


def srgb_of_linear(linear):
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_embedded_profiles_are_converted(format):
    # Red and blue exchange their primaries and the samples are linear: both must show in the pixels.
    profile = rgb_profile(BLUE, GREEN, RED, gamma=1.0)
    image = smooth()
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    read = quietly(saved(Image.fromarray(image), format, icc_profile=profile, **options))
    expected = srgb_of_linear(image[..., ::-1] / 255)
    # One step of a dark linear sample is many of sRGB's: JPEG's roundings show there.
    seen = image[..., ::-1] >= (16 if format == "JPEG" else 0)
    assert np.abs(read - expected)[seen].max() <= (12 if format == "JPEG" else 1)


def test_grey_profiles_are_converted():
    ramp = np.arange(256, dtype=np.uint8)[None]
    read = quietly(saved(Image.fromarray(ramp), "PNG", icc_profile=grey_profile(1.0)))
    assert np.abs(read - srgb_of_linear(ramp / 255)[..., None]).max() <= 1


def test_an_srgb_profile_changes_nothing():
    linear = np.linspace(0, 1, 1024)
    curve = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    table = b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *np.round(curve * 65535).astype(int))
    profile = rgb_profile(RED, GREEN, BLUE, gamma=None, curve=table)
    image = random_image(64, 64)
    read = quietly(saved(Image.fromarray(image), "PNG", icc_profile=profile))
    assert np.abs(read.astype(int) - image).max() <= 1


def test_profile_and_orientation_together():
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = rgb_profile(BLUE, GREEN, RED, gamma=1.0)
    image = smooth()
    plain = quietly(saved(Image.fromarray(image), "PNG", icc_profile=profile))
    turned = quietly(saved(Image.fromarray(np.rot90(image).copy()), "PNG", icc_profile=profile, exif=exif.tobytes()))
    np.testing.assert_array_equal(turned, plain)


def test_a_grey_image_may_carry_an_rgb_profile():
    ramp = np.arange(256, dtype=np.uint8)[None]
    profile = rgb_profile(RED, GREEN, BLUE, gamma=1.0)
    read = quietly(saved(Image.fromarray(ramp), "PNG", icc_profile=profile))
    assert np.abs(read - srgb_of_linear(ramp / 255)[..., None]).max() <= 1


@pytest.mark.parametrize("profile", [b"not a profile", grey_profile(2.2), rgb_profile(RED, GREEN, BLUE, 1.0)[:200]])
def test_a_profile_that_cannot_be_used_is_ignored_with_a_warning(profile):
    image = random_image()
    read, notes = load_image(saved(Image.fromarray(image), "PNG", icc_profile=profile))
    np.testing.assert_array_equal(read, image)
    assert len(notes) == 1 and "colour profile" in notes[0]


def test_grey_palette_and_one_bit():
    grey = smooth()[..., 0]
    as_rgb = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(quietly(saved(Image.fromarray(grey), "PNG")), as_rgb)
    palette = Image.fromarray(random_image()).quantize(16)
    np.testing.assert_array_equal(quietly(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(quietly(saved(palette, "GIF")), np.asarray(palette.convert("RGB")))
    for format in ("PNG", "TIFF", "BMP"):
        read = quietly(saved(Image.fromarray(grey > 100), format))
        np.testing.assert_array_equal(read, 255 * np.repeat((grey > 100)[..., None], 3, 2))


@pytest.mark.parametrize("format, tolerance", [("TIFF", 0), ("JPEG", 6)])
def test_cmyk(format, tolerance):
    inks = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 255, 255, 0): (255, 0, 0)}
    inks[0, 0, 0, 255] = (0, 0, 0)
    for ink, colour in inks.items():
        read = quietly(saved(Image.new("CMYK", (16, 16), ink), format))
        assert np.abs(read.astype(int) - colour).max() <= tolerance, ink


def test_lab():
    lab = np.zeros((1, 3, 3), np.uint8)
    lab[0, :, 0] = 0, 137, 255  # L* of 0, 53.7 and 100
    grey = quietly(saved(lab_image(lab), "TIFF"))
    np.testing.assert_allclose(grey[0].astype(int), [[0] * 3, [129] * 3, [255] * 3], atol=2)


def lab_image(array):
    image = Image.new("LAB", array.shape[1::-1])
    image.frombytes(array.tobytes())
    return image


# --- 16 bits ---------------------------------------------------------------------------------------------------------


def png(samples, colour_type, profile=None, transparent=None):
    """A 16-bit PNG of samples [h, w, channels], which Pillow cannot write in colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    between = chunk(b"iCCP", b"test\0\0" + zlib.compress(profile)) if profile else b""
    between += chunk(b"tRNS", struct.pack(">H", transparent)) if transparent is not None else b""
    image = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + image


def tiff(data, width, height, *, bits, photometric=1, channels=1, order="<", sample_format=1):
    """An uncompressed TIFF of one strip."""
    tags = {
        **{256: (4, width), 257: (4, height), 258: (3, bits), 259: (3, 1), 262: (3, photometric), 273: (4, 0)},
        **{277: (3, channels), 278: (4, height), 279: (4, len(data)), 339: (3, sample_format)},
    }
    end = 8 + 2 + 12 * len(tags) + 4
    extra, entries = b"", struct.pack(order + "H", len(tags))
    strip = end + 2 * 2 * channels * (channels > 1)
    for tag, (kind, value) in tags.items():
        if tag in (258, 339) and channels > 1:
            entries += struct.pack(order + "HHII", tag, kind, channels, end + len(extra))
            extra += struct.pack(order + f"{channels}H", *[value] * channels)
        elif kind == 3:
            entries += struct.pack(order + "HHIHH", tag, kind, 1, value, 0)
        else:
            entries += struct.pack(order + "HHII", tag, kind, 1, strip if tag == 273 else value)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8) + entries + struct.pack(order + "I", 0) + extra + data


RAMP_8 = np.arange(256, dtype=np.uint16).reshape(4, 64)
RAMP_16 = RAMP_8 * 257
RAMP_RGB = np.repeat(RAMP_8[..., None], 3, 2)

RAMPS_16 = {
    "PNG": png(RAMP_16[..., None], 0),
    "TIFF, little endian": tiff(RAMP_16.astype("<u2").tobytes(), 64, 4, bits=16),
    "TIFF, big endian": tiff(RAMP_16.astype(">u2").tobytes(), 64, 4, bits=16, order=">"),
    "TIFF, white is zero": tiff((65535 - RAMP_16).astype("<u2").tobytes(), 64, 4, bits=16, photometric=0),
    "TIFF, 32 bits": tiff(RAMP_16.astype("<u4").tobytes(), 64, 4, bits=32),
    "TIFF, colour": tiff((RAMP_RGB * 257).astype("<u2").tobytes(), 64, 4, bits=16, photometric=2, channels=3),
    "PNG, colour": png(RAMP_RGB * 257, 2),
    "PGM": b"P5 64 4 65535\n" + RAMP_16.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", RAMPS_16)
def test_a_16_bit_ramp_reads_like_its_8_bit_twin(kind):
    twin = quietly(saved(Image.fromarray(RAMP_8.astype(np.uint8)), "PNG"))
    np.testing.assert_array_equal(quietly(RAMPS_16[kind]), twin)


def test_16_bit_grey_is_rounded_to_the_nearest():
    every = np.arange(65536).reshape(256, 256)
    np.testing.assert_array_equal(quietly(png(every[..., None], 0))[..., 0], np.floor(every / 257 + 0.5))


def test_16_bit_grey_keeps_its_profile_and_its_transparency():
    eight = saved(Image.fromarray(RAMP_8.astype(np.uint8)), "PNG", icc_profile=grey_profile(1.0))
    sixteen = png(RAMP_16[..., None], 0, profile=grey_profile(1.0))
    np.testing.assert_array_equal(quietly(sixteen), quietly(eight))
    assert quietly(sixteen)[2, 0, 0] > 128 + 20
    assert "alpha" in load_image(png(RAMP_16[..., None], 0, transparent=257))[1][0]


def test_12_bit_tiff():
    samples = np.arange(0, 4096, 2)
    high, low = samples[0::2], samples[1::2]
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], -1).astype(np.uint8).tobytes()
    read = quietly(tiff(packed, len(samples), 1, bits=12))
    np.testing.assert_array_equal(read[0, :, 0], np.floor(samples * 255 / 4095 + 0.5))


@pytest.mark.parametrize("values, sample_format", [([0, -5], 2), ([0, 70000], 1)])
def test_32_bit_samples_without_a_range_are_refused(values, sample_format):
    data = tiff(np.array(values, "<i4").tobytes(), 2, 1, bits=32, sample_format=sample_format)
    with pytest.raises(ImageError, match="32 bits"):
        read_image(data)


def test_float_samples_are_refused():
    with pytest.raises(ImageError, match="32 bits"):
        read_image(saved(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))


# --- alpha, frames ---------------------------------------------------------------------------------------------------


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
    "16-bit grey and alpha": (png(np.full((3, 5, 2), 257 * 9), 4), np.full((3, 5, 3), 9)),
    "palette": (transparent_palette(), np.asarray(Image.fromarray(smooth()).quantize(16).convert("RGB"))),
    "one transparent colour": (saved(Image.fromarray(smooth()), "PNG", transparency=(0, 0, 0)), smooth()),
    "one transparent grey": (saved(Image.new("L", (3, 3), 7), "PNG", transparency=7), np.full((3, 3, 3), 7)),
}


@pytest.mark.parametrize("kind", ALPHA)
def test_alpha_is_dropped_with_a_warning(kind):
    data, colours = ALPHA[kind]
    with pytest.warns(ImageWarning, match="alpha channel was dropped") as warned:
        read = read_image(data)
    assert len(warned) == 1
    np.testing.assert_array_equal(read, colours)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
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
    assert load_image(path)[1] == [f"{path}: the alpha channel was dropped"]


# --- bad input -------------------------------------------------------------------------------------------------------


def test_too_many_pixels_are_refused_before_decoding():
    image = random_image(10, 10)
    assert read_image(encode_image(image, "png"), max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="10x10 pixels exceed the limit of 99"):
        read_image(encode_image(image, "png"), max_pixels=99)


@pytest.mark.parametrize("size", [(40000, 40000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs_are_refused(size):
    bomb = bytearray(encode_image(random_image(1, 1), "png"))
    bomb[16:24] = struct.pack(">II", *size)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=f"{size[0]}x{size[1]} pixels exceed the limit"):
            read_image(bytes(bomb))


def test_our_limit_replaces_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    image = random_image(10, 10)
    np.testing.assert_array_equal(quietly(encode_image(image, "png")), image)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_truncated_files_are_refused(format):
    data = encode_image(random_image(100, 100), format)
    for length in (0, 1, 10, 30, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(ImageError, match="truncated or damaged|not an image"):
            read_image(data[:length])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", [*IMAGE_FORMATS, "gif"])
def test_damage_never_raises_anything_else(format):
    generator = np.random.default_rng(1)
    data = saved(Image.fromarray(smooth()), format.upper())
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for place in generator.integers(0, min(len(data), 400), 3):
            damaged[place] = generator.integers(256)
        try:
            load_image(bytes(damaged), max_pixels=2**20)
        except ImageError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("data", [b"", b"hello", bytes(1000), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_foreign_bytes_are_refused(data):
    with pytest.raises(ImageError, match="this is not an image that can be read"):
        read_image(data)


def test_errors_name_the_file_and_the_reason(tmp_path):
    with pytest.raises(ImageError, match=r"missing\.png: cannot be read: No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="this is a folder"):
        read_image(tmp_path)
    (tmp_path / "cut.png").write_bytes(encode_image(random_image(), "png")[:-100])
    with pytest.raises(ImageError, match=r"cut\.png: this image is truncated"):
        read_image(tmp_path / "cut.png")


# --- padding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 64), (65, 127), (128, 1)])
def test_padding_repeats_the_edge_and_is_undone_by_cropping(size):
    image = random_image(*size)
    height, width = size
    padded = pad_to_multiple(image)
    assert padded.shape[0] % 64 == padded.shape[1] % 64 == 0
    assert 0 <= padded.shape[0] - height < 64 and 0 <= padded.shape[1] - width < 64
    np.testing.assert_array_equal(padded[:height, :width], image)
    assert (padded[height:, :width] == image[-1:]).all()
    assert (padded[:, width:] == padded[:, width - 1 : width]).all()


def test_no_jax():
    code = "import sys, cdc_jax.io.images; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
