"""Reading converts every kind of image file to uint8 [h, w, 3] sRGB; lossless formats round-trip."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cdc_jax.errors import ImageError
from cdc_jax.io.files import IMAGE_FORMATS, LOSSY_FORMATS
from cdc_jax.io.images import (
    ALPHA_FORMATS,
    ImageWarning,
    encode_image,
    load_image,
    pad_to_multiple,
    read_contents,
    read_image,
    write_image,
)
from tests.io.image_files import (
    NOT_IMAGES,
    quietly,
    random_image,
    saved,
    smooth,
)

LOSSLESS = [name for name in IMAGE_FORMATS if name != "jpeg"]


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 1)])
def test_lossless_formats_round_trip(format, size):
    image = random_image(*size)
    np.testing.assert_array_equal(quietly(encode_image(image, format)), image)


def test_jpeg_is_close():
    image = smooth()
    assert np.abs(quietly(encode_image(image, "jpeg")).astype(int) - image).max() <= 8


@pytest.mark.parametrize("format", LOSSY_FORMATS)
def test_lossy_formats_take_a_quality(tmp_path, format):
    write_image(tmp_path / "a", smooth(), format=format, quality=100)
    best = read_image(tmp_path / "a")
    worst = read_image(encode_image(smooth(), format, quality=1))
    assert 0 < np.abs(best.astype(int) - smooth()).max() <= 12
    assert np.abs(worst.astype(int) - smooth()).max() > 20


@pytest.mark.parametrize(("format", "quality"), [("png", 90), ("jpeg", 0), ("webp", 101)])
def test_qualities_that_are_refused(format, quality):
    with pytest.raises(ImageError, match=f"quality is {quality}; it must be 1 to 100, for the formats jpeg and webp"):
        encode_image(smooth(), format, quality=quality)


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


@pytest.mark.parametrize("image", [*NOT_IMAGES, [[[0, 0, 0]]]])
def test_only_uint8_color_arrays_are_written(image):
    with pytest.raises(ImageError, match="An image"):
        encode_image(image, "png")


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_alpha_is_written_where_the_format_holds_it(tmp_path, format):
    image = np.dstack([smooth(), smooth()[..., 0]])
    path = tmp_path / "a"
    if format in ALPHA_FORMATS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write_image(path, image, format=format)
        contents = read_contents(path)
        np.testing.assert_array_equal(np.dstack([contents.pixels, contents.alpha]), image)  # also where transparent
    else:
        with pytest.warns(ImageWarning, match=f"a: The alpha channel was dropped, since {format} has none"):
            write_image(path, image, format=format)
        np.testing.assert_array_equal(read_image(path), read_image(encode_image(smooth(), format)))


def test_errors_of_writing_name_the_reason(tmp_path):
    image = random_image()
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(ImageError, match=r"image\.xyz: The suffix"):
        write_image(tmp_path / "image.xyz", image)
    with pytest.raises(ImageError, match="'gif' is not an image format"):
        write_image(tmp_path / "image.gif", image, format="gif")
    for name in ("missing/a.png", "file/a.png", ""):
        with pytest.raises(ImageError, match="Cannot be written"):
            write_image(tmp_path / name, image, format="png")
    with pytest.raises(ImageError, match="17000x1 pixels cannot be written as webp"):
        write_image(tmp_path / "wide.webp", random_image(1, 17000))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"kept"


# --- bad input --------------------------------------------------------------------------------------------------------


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
        with pytest.raises(ImageError, match="truncated|not an image"):
            read_image(data[:length])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", [*IMAGE_FORMATS, "gif"])
def test_corruption_raises_image_errors_only(format):
    generator = np.random.default_rng(1)
    data = saved(Image.fromarray(smooth()), format.upper())
    refused = 0
    for _ in range(150):
        corrupt = bytearray(data)
        for position in generator.integers(0, min(len(data), 400), 3):
            corrupt[position] = generator.integers(256)
        try:
            load_image(bytes(corrupt), max_pixels=2**20)
        except ImageError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 0


def test_a_second_frame_that_is_cut_off():
    """Found by fuzzing: Pillow looks for it when asked whether there are several."""
    stream = io.BytesIO()
    first, second = (Image.new("L", (9, 8), value) for value in (0, 200))
    first.save(stream, "GIF", save_all=True, append_images=[second])
    data = stream.getvalue()
    assert load_image(data)[1] == ["Only the first of several frames was read."]
    outcomes = Counter()
    for length in range(len(data)):
        try:
            load_image(data[:length])
        except ImageError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert outcomes["refused"] > 20 and outcomes["read"] > 5


@pytest.mark.parametrize("data", [b"", b"hello", bytes(1000), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_foreign_bytes_are_refused(data):
    with pytest.raises(ImageError, match="This is not an image in a format that Pillow reads"):
        read_image(data)


def test_errors_name_the_file_and_the_reason(tmp_path):
    with pytest.raises(ImageError, match=r"missing\.png: Cannot be read: No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="This is a folder"):
        read_image(tmp_path)
    (tmp_path / "cut.png").write_bytes(encode_image(random_image(), "png")[:-100])
    with pytest.raises(ImageError, match=r"cut\.png: This image is truncated"):
        read_image(tmp_path / "cut.png")


# --- padding ----------------------------------------------------------------------------------------------------------


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
