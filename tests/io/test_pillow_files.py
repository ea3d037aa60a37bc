"""HEIC and AVIF files, with their package and without; what is said of a file that ends too early."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from cdc_jax.errors import ImageError
from cdc_jax.io.image_folders import HEIF_SUFFIXES, find_images, image_formats, image_suffixes
from cdc_jax.io.images import read_contents, read_image
from tests.io.image_files import BLUE, GREEN, RED, rgb_profile, saved, smooth

HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def heif():
    pytest.importorskip("pillow_heif", reason="needs pip install '.[heif]'")
    assert "HEIF" in image_formats()


@pytest.fixture
def without_heif(monkeypatch):
    """As if the package were not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image_formats.cache_clear(), image_suffixes.cache_clear()
    registered = {name: Image.OPEN.pop(name) for name in ("HEIF",) if name in Image.OPEN}
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    suffixes = {key: value for key, value in Image.EXTENSION.items() if value != "HEIF"}
    monkeypatch.setattr(Image, "EXTENSION", suffixes)
    yield
    Image.OPEN.update(registered)
    image_formats.cache_clear(), image_suffixes.cache_clear()


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_pixels_alpha_orientation_and_profile(heif, format):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    profile = rgb_profile(BLUE, GREEN, RED, gamma=2.2)
    image = np.dstack([smooth(), smooth()[..., 0]])
    data = saved(Image.fromarray(image), format, exif=exif.tobytes(), icc_profile=profile, quality=100)
    contents = read_contents(data, keep_metadata=True)
    assert contents.notes == () and contents.metadata.icc_profile == profile and b"Maker" in contents.metadata.exif
    upright = np.rot90(image, -1).astype(int)
    np.testing.assert_allclose(contents.pixels.astype(int), upright[..., :3], atol=12)
    np.testing.assert_allclose(contents.alpha.astype(int), upright[..., 3], atol=3)
    in_srgb = read_contents(data).pixels.astype(int)
    assert np.abs(in_srgb - upright[..., 2::-1]).mean() < 8 < np.abs(in_srgb - upright[..., :3]).mean()


def test_heic_files_are_found_in_folders(heif, tmp_path):
    (tmp_path / "a.HEIC").touch(), (tmp_path / "b.avif").touch(), (tmp_path / "c.svg").touch()
    assert find_images(tmp_path).names == ["a.HEIC", "b.avif"]
    assert image_suffixes() >= HEIF_SUFFIXES


def test_without_the_package_heic_names_it(without_heif, tmp_path):
    (tmp_path / "a.heic").write_bytes(HEIC_HEAD + bytes(100))
    with pytest.raises(
        ImageError, match=r"a\.heic: This is a HEIC image, .* pillow-heif .*: pip install '\.\[heif\]'\."
    ):
        read_image(tmp_path / "a.heic")
    assert find_images(tmp_path).names == []  # nothing to train on
    assert read_image(saved(Image.fromarray(smooth()), "PNG")).shape == smooth().shape
    with pytest.raises(ImageError, match="not an image in a format that Pillow reads"):
        read_image(b"\0\0\0\x18ftypqt  " + bytes(100))


def test_corrupt_heic_files_are_refused(heif):
    data = saved(Image.fromarray(smooth()), "HEIF")
    for corrupt in (HEIC_HEAD + bytes(100), data[:100], data[: len(data) // 2]):
        with pytest.raises(ImageError, match="truncated|corrupt"):
            read_image(corrupt)
    with pytest.raises(ImageError, match="56x40 pixels exceed the limit of 99"):
        read_image(data, max_pixels=99)


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_only_the_first_frame_is_read_with_a_note(heif, format):
    first, second = Image.new("RGB", (64, 64), (250, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 250))
    contents = read_contents(saved(first, format, save_all=True, append_images=[second]))
    assert contents.notes == ("Only the first of several frames was read.",)
    assert np.abs(contents.pixels.astype(int) - (250, 0, 0)).max() <= 8


def test_a_png_that_ends_too_early_is_called_truncated():
    data = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)), "PNG")
    for length in (len(data) // 2, len(data) - 30):
        with pytest.raises(ImageError, match=r"^This image is truncated: the end of its file is missing\.$"):
            read_image(io.BytesIO(data[:length]))
