"""The types that `compress` accepts as an image, and those that it refuses."""

from __future__ import annotations

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as PILImage

from cdc_jax.codec.image_input import as_contents
from cdc_jax.errors import ImageError
from cdc_jax.io import cdc_file
from cdc_jax.io.files import MAX_PIXELS
from cdc_jax.io.images import ImageWarning, from_pil, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "image.png"
    PILImage.fromarray(PIXELS).save(path)
    return path


@pytest.mark.parametrize(
    "convert",
    [
        lambda path: path,
        str,
        PILImage.open,
        lambda _: PILImage.fromarray(PIXELS),
        lambda _: PIXELS,
        lambda _: jnp.asarray(PIXELS),
        lambda _: memoryview(PIXELS),
        lambda _: np.asfortranarray(PIXELS),
    ],
    ids=["path", "str", "opened", "PIL", "NumPy", "JAX", "memoryview", "Fortran order"],
)
def test_images_of_every_kind_make_the_same_file(random_codec, path, convert):
    image = convert(path)
    np.testing.assert_array_equal(as_contents(image, MAX_PIXELS).pixels, PIXELS)
    expected = random_codec.compress(PIXELS)
    assert random_codec.compress(image) == expected
    assert random_codec.compress_batch([image]) == [expected]


def test_estimate_bits_accepts_the_same_kinds(random_codec, path):
    assert random_codec.estimate_bits(path) == random_codec.estimate_bits(PIXELS)


@pytest.mark.parametrize(
    "image",
    [
        None,
        5,
        b"\x89PNG",
        bytearray(PIXELS.tobytes()),
        PIXELS.tolist(),
        io.BytesIO(b"\x89PNG"),
        (row for row in PIXELS),
    ],
    ids=lambda image: type(image).__name__,
)
def test_other_types_are_type_errors(random_codec, image):
    with pytest.raises(TypeError, match=f"uint8 array .* not {type(image).__name__};"):
        random_codec.compress(image)
    with pytest.raises(TypeError):
        random_codec.compress_batch([image])


@pytest.mark.parametrize("array", [jnp.zeros((4, 4, 3)), np.uint8(5), memoryview(b"abc")])
def test_arrays_of_another_type_or_shape_are_image_errors(random_codec, array):
    with pytest.raises(ImageError, match="uint8"):
        random_codec.compress(array)


def test_large_images_are_refused_before_they_are_decoded(path):
    class Unloaded(PILImage.Image):
        width, height = 100, 100

        def load(self):
            raise AssertionError("decoded")

    for image in (path, PIXELS, PILImage.fromarray(PIXELS)):
        as_contents(image, 64 * 64)
    for image in (Unloaded(), np.zeros((100, 100, 3), np.uint8)):
        with pytest.raises(ImageError, match="100x100 pixels, more than the limit of 9999"):
            as_contents(image, 9999)


def test_pil_images_are_converted_as_files_are(tmp_path):
    """Orientation, alpha, metadata and a 16-bit range are converted, and the PIL image keeps its `info`."""
    exif = PILImage.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    rotated = tmp_path / "rotated.png"
    PILImage.fromarray(np.dstack([PIXELS, PIXELS[..., 0]])).save(rotated, exif=exif)
    pil_image = PILImage.open(rotated)
    pil_image.load()
    info, tags = dict(pil_image.info), dict(pil_image.getexif())
    for keep_metadata in (False, True):
        actual = from_pil(pil_image, keep_metadata=keep_metadata)
        np.testing.assert_array_equal(actual.pixels, np.rot90(PIXELS, -1))
        np.testing.assert_array_equal(actual.alpha, np.rot90(PIXELS[..., 0], -1))
        assert bool(actual.metadata.exif) == keep_metadata
    assert pil_image.info == info and dict(pil_image.getexif()) == tags and "exif" in info

    deep = tmp_path / "deep.png"
    PILImage.fromarray(np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)).save(deep)
    with pytest.warns(ImageWarning, match="deep.png: 16 bits a sample were rounded to 8"):
        expected = read_image(deep)
    np.testing.assert_array_equal(from_pil(PILImage.open(deep)).pixels, expected)


def test_what_is_left_out_of_a_file_is_a_warning(random_codec, tmp_path):
    path = tmp_path / "moving.gif"
    frames = [PILImage.fromarray(PIXELS), PILImage.fromarray(PIXELS[::-1].copy())]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.warns(ImageWarning, match="moving.gif: Only the first of several frames"):
        random_codec.compress(path)


def test_arrays_with_alpha(random_codec):
    """Equal to the file of the colors, but for the chunk."""
    alpha = np.random.default_rng(1).integers(0, 256, PIXELS.shape[:2], np.uint8)
    image = np.dstack([PIXELS, alpha])
    data = random_codec.compress(image)
    assert [chunk.type for chunk in cdc_file.unpack(data).chunks] == [b"ALPH"]
    assert cdc_file.unpack(data).stream == cdc_file.unpack(random_codec.compress(PIXELS)).stream
    assert random_codec.compress(image, drop_alpha=True) == random_codec.compress(PIXELS)
    assert random_codec.compress_batch([image], drop_alpha=True) == [random_codec.compress(PIXELS)]
    image[..., 3] = 255
    assert random_codec.compress(image) == random_codec.compress(PIXELS)


def test_truncated_pil_images_are_image_errors(path):
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ImageError, match="This image is truncated: the end of its file is missing"):
        from_pil(PILImage.open(path))


@pytest.mark.parametrize("data", ["photo.cdc", None, [1, 2]])
def test_files_are_given_as_bytes(random_codec, data):
    calls = random_codec.decompress, random_codec.read_symbols, lambda file: random_codec.decompress_batch([file])
    for decode in calls:
        with pytest.raises(TypeError, match=f"not as {type(data).__name__}"):
            decode(data)


@pytest.mark.parametrize("convert", [bytearray, memoryview])
def test_files_may_be_any_buffer(random_codec, convert):
    data = random_codec.compress(PIXELS)
    np.testing.assert_array_equal(random_codec.decompress(convert(data)), random_codec.decompress(data))
