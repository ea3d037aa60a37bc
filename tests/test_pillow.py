"""`.cdc` files in Pillow: opened, decoded and saved as `Codec` does, lazily and in threads, with Pillow's errors."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import cdc_jax
import cdc_jax.pillow
from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.image_folders import image_formats, image_suffixes
from cdc_jax.io.metadata import Metadata
from tests.helpers.processes import ROOT, user_environment
from tests.io.image_files import smooth

SMALL = {"steps": 0}  # the preview: no network to compile


@pytest.fixture(autouse=True)
def defaults(compact_bundle):
    """The compact model and its preview, for the time of a test."""
    cdc_jax.pillow.set_defaults(model=compact_bundle, **SMALL)
    yield
    cdc_jax.pillow.set_defaults()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.tile(smooth(), (2, 2, 1))))


@pytest.fixture
def path(compact_codec, photo, tmp_path) -> Path:
    path = tmp_path / "photo.cdc"
    path.write_bytes(compact_codec.compress(photo, quality=40))
    return path


@pytest.mark.parametrize("options", [{}, {"quality": 40}, {"quality": 97.5}])
def test_saved_and_opened_images_are_the_codec_s(compact_codec, photo, tmp_path, options):
    photo.save(tmp_path / "photo.cdc", **options)
    data = (tmp_path / "photo.cdc").read_bytes()
    assert data == compact_codec.compress(photo, **options)
    with Image.open(tmp_path / "photo.cdc") as image:
        assert (image.format, image.size, image.mode) == ("CDC", photo.size, "RGB")
        assert image.info["quality"] == options.get("quality", 50)
        assert image.info["fingerprint"] == compact_codec.fingerprint.hex()
        np.testing.assert_array_equal(np.asarray(image), compact_codec.decompress(data, **SMALL))


def test_photographs(compact_codec, photograph, tmp_path):
    for number, crop in enumerate((photograph, photograph[:65, 100:229], photograph[200:, :64])):
        path = tmp_path / f"{number}.cdc"
        Image.fromarray(crop).save(path, quality=70)
        assert path.read_bytes() == compact_codec.compress(crop, quality=70)
        expected = compact_codec.decompress(path.read_bytes(), **SMALL)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)


@pytest.mark.slow
def test_kodak(compact_codec, shared_dir, tmp_path):
    """Decoded as by default, not only to the preview."""
    cdc_jax.pillow.set_defaults(model=compact_codec)
    files = sorted((shared_dir / "kodak").glob("*.png"))
    assert len(files) == 24
    for file in files:
        with Image.open(file) as image:
            image.save(tmp_path / "a.cdc", quality=40)
        data = (tmp_path / "a.cdc").read_bytes()
        assert data == compact_codec.compress(file, quality=40)
        expected = compact_codec.decompress(data)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.cdc")), expected)
    assert expected.shape == (512, 768, 3)


def test_streams_and_named_formats(compact_codec, photo):
    buffer = io.BytesIO()
    photo.save(buffer, "CDC", quality=40)
    assert buffer.getvalue() == compact_codec.compress(photo, quality=40)
    buffer.seek(0)
    assert Image.open(buffer, formats=["CDC"]).size == photo.size


def test_decoding_is_chosen_by_info_and_by_defaults(compact_bundle, compact_codec, path):
    data = path.read_bytes()
    image = Image.open(path)
    image.info.update(steps=1, seed=3, gamma=0.5)
    np.testing.assert_array_equal(np.asarray(image), compact_codec.decompress(data, steps=1, seed=3, gamma=0.5))
    cdc_jax.pillow.set_defaults(model=compact_codec, steps=1, gamma=0.5)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), compact_codec.decompress(data, steps=1, gamma=0.5))
    cdc_jax.pillow.set_defaults()
    image = Image.open(path)
    image.info.update(model=compact_bundle, steps=0)
    np.testing.assert_array_equal(np.asarray(image), compact_codec.decompress(data, steps=0))


def test_thumbnails_are_made_of_the_preview(compact_bundle, compact_codec, path, monkeypatch):
    cdc_jax.pillow.set_defaults(model=compact_bundle)
    data, decoded = path.read_bytes(), []
    decompress = type(compact_codec).decompress

    def noted(self, data, **settings):
        decoded.append(settings["steps"])
        return decompress(self, data, **settings)

    monkeypatch.setattr(type(compact_codec), "decompress", noted)
    for size, steps in (((28, 20), None), ((29, 20), None), ((28, 20), 1)):
        image = Image.open(path)
        image.info.update({"steps": steps} if steps else {})
        image.thumbnail(size)
        assert image.size[0] in (28, 29)
    assert decoded == [0, None, 1]
    expected = Image.fromarray(compact_codec.decompress(data, steps=0))
    expected.thumbnail((28, 20))
    image = Image.open(path)
    image.thumbnail((28, 20))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_thumbnails_of_models_without_a_preview(random_bundle, random_codec, photo, tmp_path):
    cdc_jax.pillow.set_defaults(model=random_bundle)
    photo.save(tmp_path / "a.cdc")
    image = Image.open(tmp_path / "a.cdc")
    image.thumbnail((20, 20))
    expected = Image.fromarray(random_codec.decompress((tmp_path / "a.cdc").read_bytes()))
    expected.thumbnail((20, 20))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_models_of_saving(random_bundle, random_codec, photo, tmp_path):
    photo.save(tmp_path / "a.cdc", model=random_bundle)
    assert (tmp_path / "a.cdc").read_bytes() == random_codec.compress(photo)
    assert "quality" not in Image.open(tmp_path / "a.cdc").info


def test_alpha_and_metadata(compact_codec, photo, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    see_through = photo.copy()
    see_through.putalpha(Image.fromarray(np.asarray(photo)[..., 0]))
    see_through.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as source:
        source.save(tmp_path / "a.cdc", keep_metadata=True)
        source.save(tmp_path / "b.cdc", drop_alpha=True)
    image = Image.open(tmp_path / "a.cdc")
    assert (image.mode, image.size) == ("RGBA", photo.size[::-1]) and dict(image.getexif()) == {0x010F: "Maker"}
    expected = compact_codec.decompress((tmp_path / "a.cdc").read_bytes(), return_alpha=True, **SMALL)
    np.testing.assert_array_equal(np.asarray(image), expected)
    np.testing.assert_array_equal(expected[..., 3], np.rot90(np.asarray(photo)[..., 0], -1))
    assert (Image.open(tmp_path / "b.cdc").mode, dict(Image.open(tmp_path / "b.cdc").getexif())) == ("RGB", {})


def test_metadata_longer_than_a_header_is_read_on_opening(path):
    header = cdc_file.unpack(path.read_bytes())
    metadata = Metadata(icc_profile=bytes(range(256)) * 9, xmp=b"<x/>" * 900)
    chunks = (Chunk(b"ICCP", metadata.icc_profile), Chunk(b"XMPP", metadata.xmp), Chunk(b"none", b""))
    fields = header.fingerprint, header.height, header.width, header.stream
    path.write_bytes(cdc_file.pack(*fields, level=header.level, chunks=chunks))
    image = Image.open(path)
    assert (image.info["icc_profile"], image.info["xmp"]) == (metadata.icc_profile, metadata.xmp)
    image.load()


def test_the_format_is_registered(path):
    assert Image.MIME["CDC"] == Image.open(path).get_format_mimetype() == cdc_jax.pillow.MIME_TYPE == "image/x-cdc"
    assert Image.registered_extensions()[".cdc"] == "CDC"
    image_formats.cache_clear(), image_suffixes.cache_clear()
    assert "CDC" not in image_formats() and ".cdc" not in image_suffixes()  # they are no input of `cdc compress`


def test_opening_loads_neither_jax_nor_a_model(path):
    code = (
        "import sys, cdc_jax.pillow; from PIL import Image; image = Image.open(sys.argv[1]);"
        "print(image.size, image.mode, *({'jax', 'flax', 'constriction'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, env=user_environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "(112, 80) RGB\n"


def test_threads_open_one_codec_and_decode(compact_bundle, compact_codec, path, monkeypatch):
    opened = []
    load_codec = cdc_jax.load_codec

    def slowly(bundle):
        opened.append(bundle)
        time.sleep(0.2)
        return load_codec(bundle)

    monkeypatch.setattr("cdc_jax.codec.codec.load_codec", slowly)
    monkeypatch.setattr(cdc_jax.pillow, "_codecs", cdc_jax.pillow._Codecs())
    expected = compact_codec.decompress(path.read_bytes(), **SMALL)

    def use(number):
        if number % 2:
            buffer = io.BytesIO()
            Image.fromarray(expected).save(buffer, "CDC", quality=40)
            return buffer.getvalue() == compact_codec.compress(expected, quality=40)
        return np.array_equal(np.asarray(Image.open(path)), expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(8)))
    assert opened == [str(compact_bundle)]


def test_a_file_is_closed_once_it_is_decoded(path):
    image = Image.open(path)
    file = image.fp
    image.load()
    assert file.closed and image.fp is None
    image.load()  # changes nothing
    with Image.open(path) as unread:
        pass
    with pytest.raises((OSError, ValueError, AttributeError, AssertionError)):
        unread.load()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc3DC",
        b"\xc3DC\x07" + bytes(40),
        b"\xc3DC\x01" + bytes(40),  # no pixels
        b"\xc3DC\x02abcd\x05\x05\xff\xff" + bytes(40),  # quality
        b"\xc3DC\x02abcd\x05\x05\0\0\x01ALPH\x05" + bytes(40),  # checksum
    ],
)
def test_what_has_no_valid_header_is_not_identified(data):
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))


def test_a_corrupt_stream_is_an_os_error_on_loading(path):
    data = path.read_bytes()
    for corrupt in (data[:-1], data[:40], data[:-9] + b"x" + data[-8:]):
        image = Image.open(io.BytesIO(corrupt))
        assert image.size == (112, 80)
        with pytest.raises(OSError, match="checksum"):
            image.load()


def test_other_models_and_bundles_are_os_errors(random_bundle, path, tmp_path):
    image = Image.open(path)
    image.info.update(steps=1)
    for model, message in ((random_bundle, "written with the model"), (tmp_path / "nothing", "not a bundle")):
        image.info["model"] = model
        with pytest.raises(OSError, match=message):
            image.load()
    del image.info["model"]
    image.info["steps"] = -1
    with pytest.raises(OSError, match="steps is -1"):
        image.load()
    image.info["steps"] = 0
    image.load()  # what failed may be tried again


def test_images_that_cannot_be_saved_are_os_errors_and_leave_no_file(photo, tmp_path):
    with pytest.raises(OSError, match="quality is 101"):
        photo.save(tmp_path / "a.cdc", quality=101)
    with pytest.raises(OSError, match="32 bits"):
        Image.new("F", (5, 5)).save(tmp_path / "a.cdc")
    assert not list(tmp_path.glob("*.cdc"))


def test_bombs_are_pillow_s_to_refuse(monkeypatch, path):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


@pytest.mark.slow
def test_opening_a_thousand_files_takes_at_most_twice_png_s_time(path, photo, tmp_path, capsys):
    photo.save(tmp_path / "photo.png")
    files = {name: [tmp_path / f"{i}-{name}" for i in range(1000)] for name in ("photo.cdc", "photo.png")}
    for name in files:
        for file in files[name]:
            file.write_bytes((tmp_path / name).read_bytes())

    def seconds(name):
        start = time.process_time()
        for file in files[name]:
            with Image.open(file) as image:
                assert image.size == (112, 80)
        return time.process_time() - start

    seconds("photo.png"), seconds("photo.cdc")  # both plugins are loaded
    times = {name: min(seconds(name) for _ in range(5)) for name in files}
    with capsys.disabled():
        print(f"\nImage.open of 1,000 files: {times}")
    assert times["photo.cdc"] <= 2 * times["photo.png"]
