"""Folders of images, scikit-image's photographs, and their validation images."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image, features

from cdc_jax.data.folders import find_images, scikit_image_photographs
from cdc_jax.data.sources import check_workdir, open_sources, validation_images
from cdc_jax.errors import CdcError, ConfigError, ImageError
from tests.data.conftest import save_image


def find(folder):
    return find_images(folder, setting="data.path")


def test_folders_are_searched_recursively_and_sorted(tmp_path):
    for name in ("b.png", "a.jpg", "deep/er/c.PNG", "deep/a.webp", ".hidden.png", ".thumbnails/a.png"):
        save_image(tmp_path / name, 1)
    (tmp_path / "notes.txt").write_text("")
    assert find(tmp_path).names == ["a.jpg", "b.png", "deep/a.webp", "deep/er/c.PNG"]


@pytest.mark.parametrize("suffix", "avif bmp dds gif ico jp2 jpg png ppm tga tif webp".split())
def test_any_format_of_pillow_is_read(tmp_path, suffix):
    if not {"avif": features.check("avif"), "jp2": features.check("jpg_2000")}.get(suffix, True):
        pytest.skip(f"this Pillow was built without {suffix}")
    gray = np.full((64, 64, 3), 128, np.uint8)
    Image.fromarray(gray).save(tmp_path / f"a.{suffix}")
    source = find(tmp_path)
    assert np.abs(source.read(0).astype(int) - gray).max() <= 3


def test_files_that_start_programs_are_not_opened(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.eps")
    with pytest.raises(ConfigError, match="no images"):
        find(tmp_path)
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match="a.png"):
        find(tmp_path).read(0)


def test_images_come_upright(tmp_path):
    image, exif = Image.new("RGB", (40, 20)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert find(tmp_path).read(0).shape == (40, 20, 3)


def test_links_are_followed_once(tmp_path):
    save_image(tmp_path / "elsewhere" / "a.png", 1)
    (tmp_path / "images").mkdir()
    try:
        (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "images")
    except OSError:
        pytest.skip("this system makes no symbolic links")
    assert find(tmp_path / "images").names == ["linked/a.png"]


def test_missing_and_empty_folders(tmp_path):
    for folder in ("", str(tmp_path / "missing")):
        with pytest.raises(ConfigError, match=f"data.path is {folder!r}, which is not a folder"):
            find(folder)
    with pytest.raises(ConfigError, match="no images"):
        find(tmp_path)


def test_a_validation_image_is_named_by_name_or_path(folder, data_config):
    save_image(folder / "deep" / "5.png", 50)
    save_image(folder / "deep" / "x.png", 51)
    for validation, name, number in (("3.png", "3.png", 3), ("x.png", "deep/x.png", 51), ("5.png", "5.png", 5)):
        config = data_config(validation=validation)
        assert name not in open_sources(config).training.names and len(open_sources(config).training) == 10
        ((read_name, image),) = validation_images(config)
        assert read_name == name and (image[..., 0] == number).all() and image.dtype == np.uint8
    save_image(folder / "deeper" / "x.png", 52)
    with pytest.raises(ConfigError, match="2 images.+deep/x.png"):
        open_sources(data_config(validation="x.png"))
    with pytest.raises(ConfigError, match="c.png"):
        open_sources(data_config(validation="c.png"))


def test_a_folder_may_be_the_validation_images(folder, data_config, tmp_path):
    save_image(tmp_path / "other" / "a.png", 77)
    config = data_config(validation=str(tmp_path / "other"))
    assert len(open_sources(config).training) == 9
    assert [name for name, _ in validation_images(config)] == ["a.png"]
    save_image(folder / "held" / "b.png", 78)  # below the training folder
    save_image(folder / "held" / "c.png", 79)
    config = data_config(validation=str(folder / "held"))
    assert open_sources(config).training.names == [f"{number}.png" for number in range(9)]
    assert [name for name, _ in validation_images(config)] == ["b.png", "c.png"]
    assert [name for name, _ in validation_images(config, 1)] == ["b.png"]
    with pytest.raises(ConfigError, match="no image of the source to train on"):
        open_sources(data_config(validation=str(folder)))


def test_a_run_does_not_write_among_its_images(folder, data_config, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    for workdir in (folder, folder / "runs" / "a", tmp_path / "link" / "runs"):
        with pytest.raises(ConfigError, match=r"--workdir is .+ inside data\.path"):
            check_workdir(data_config(), workdir)
        with pytest.raises(ConfigError, match=r"inside data\.validation"):
            check_workdir(data_config(source="scikit-image", validation=str(folder)), workdir)
        check_workdir(data_config(source="scikit-image"), workdir)
    for workdir in (tmp_path, tmp_path / "images-run", "gs://bucket/images"):
        check_workdir(data_config(), workdir)


def test_no_validation_image(data_config):
    assert validation_images(data_config()) == [] and open_sources(data_config()).validation is None


def test_the_only_image_cannot_be_the_validation_image(tmp_path, data_config):
    save_image(tmp_path / "one" / "a.png", 1)
    with pytest.raises(ConfigError, match="no image of the source to train on"):
        open_sources(data_config(path=str(tmp_path / "one"), validation="a.png"))


def test_scikit_image_photographs(data_config, photograph):
    config = data_config(source="scikit-image", validation="chelsea.png")
    assert len(open_sources(config).training) == 10
    ((name, image),) = validation_images(config)
    assert name == "chelsea.png"
    np.testing.assert_array_equal(image, photograph)


def test_scikit_image_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CdcError, match=r"pip install '\.\[demo\]'"):
        scikit_image_photographs()
