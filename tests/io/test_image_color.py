"""Reading converts orientation, color profiles and color spaces of image files to upright sRGB."""

import struct

import numpy as np
import pytest
from PIL import Image

from cdc_jax.io.images import load_image
from tests.io.image_files import (
    BLUE,
    GREEN,
    RED,
    gray_profile,
    quietly,
    random_image,
    rgb_profile,
    saved,
    smooth,
    srgb_of_linear,
    xyz,
)


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
def test_an_invalid_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = smooth()
    np.testing.assert_array_equal(quietly(saved(Image.fromarray(image), "PNG", exif=exif.tobytes())), image)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_corrupt_exif_is_ignored():
    image = smooth()
    data = saved(Image.fromarray(image), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(quietly(data), image)


# --- color -----------------------------------------------------------------------------------------------------------


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


def test_gray_profiles_are_converted():
    ramp = np.arange(256, dtype=np.uint8)[None]
    read = quietly(saved(Image.fromarray(ramp), "PNG", icc_profile=gray_profile(1.0)))
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


def test_a_gray_image_may_carry_an_rgb_profile():
    ramp = np.arange(256, dtype=np.uint8)[None]
    profile = rgb_profile(RED, GREEN, BLUE, gamma=1.0)
    read = quietly(saved(Image.fromarray(ramp), "PNG", icc_profile=profile))
    assert np.abs(read - srgb_of_linear(ramp / 255)[..., None]).max() <= 1


@pytest.mark.parametrize("profile", [b"not a profile", gray_profile(2.2), rgb_profile(RED, GREEN, BLUE, 1.0)[:200]])
def test_a_profile_that_cannot_be_used_is_ignored_with_a_warning(profile):
    image = random_image()
    read, notes = load_image(saved(Image.fromarray(image), "PNG", icc_profile=profile))
    np.testing.assert_array_equal(read, image)
    assert len(notes) == 1 and "color profile" in notes[0]


def test_gray_palette_and_one_bit():
    gray = smooth()[..., 0]
    as_rgb = np.repeat(gray[..., None], 3, 2)
    np.testing.assert_array_equal(quietly(saved(Image.fromarray(gray), "PNG")), as_rgb)
    palette = Image.fromarray(random_image()).quantize(16)
    np.testing.assert_array_equal(quietly(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(quietly(saved(palette, "GIF")), np.asarray(palette.convert("RGB")))
    for format in ("PNG", "TIFF", "BMP"):
        read = quietly(saved(Image.fromarray(gray > 100), format))
        np.testing.assert_array_equal(read, 255 * np.repeat((gray > 100)[..., None], 3, 2))


@pytest.mark.parametrize("format, tolerance", [("TIFF", 0), ("JPEG", 6)])
def test_cmyk(format, tolerance):
    inks = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 255, 255, 0): (255, 0, 0)}
    inks[0, 0, 0, 255] = (0, 0, 0)
    for ink, color in inks.items():
        read = quietly(saved(Image.new("CMYK", (16, 16), ink), format))
        assert np.abs(read.astype(int) - color).max() <= tolerance, ink


def test_lab():
    lab = np.zeros((1, 3, 3), np.uint8)
    lab[0, :, 0] = 0, 137, 255  # L* of 0, 53.7 and 100
    gray = quietly(saved(lab_image(lab), "TIFF"))
    np.testing.assert_allclose(gray[0].astype(int), [[0] * 3, [129] * 3, [255] * 3], atol=2)


def lab_image(array):
    image = Image.new("LAB", array.shape[1::-1])
    image.frombytes(array.tobytes())
    return image


def test_wide_gamut_is_converted_to_srgb():
    """Display P3 of cameras: colors inside sRGB come out as their sRGB values, those outside are clipped."""
    primaries = xyz(0.51512, 0.24119, -0.00105), xyz(0.29198, 0.69225, 0.04189), xyz(0.15710, 0.06657, 0.78407)
    profile = rgb_profile(*primaries, gamma=2.2)
    colors = np.array([[[200, 120, 100], [90, 130, 80], [60, 70, 140], [128, 128, 128], [0, 255, 0]]], np.uint8)
    p3 = np.array([[0.51512, 0.29198, 0.15710], [0.24119, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
    srgb = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    linear = (colors / 255) ** 2.2 @ (np.linalg.inv(srgb) @ p3).T
    for format in ("PNG", "JPEG", "WEBP", "TIFF"):
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
        large = np.repeat(np.repeat(colors, 16, 0), 16, 1)
        read = quietly(saved(Image.fromarray(large), format, icc_profile=profile, **options))
        expected = srgb_of_linear(np.clip(linear, 0, 1))
        np.testing.assert_allclose(read[8:9, 8::16], expected, atol=2 if format != "JPEG" else 4)
    assert linear[0, 4, 0] < -0.1  # no sRGB
