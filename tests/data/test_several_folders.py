"""Several folders in `data.path`, and crops that are scaled down."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_jax.data.folders import ImageFiles, ImageFolders
from cdc_jax.data.pipeline import open_batches
from cdc_jax.data.sources import check_workdir, open_sources, validation_images
from cdc_jax.errors import ConfigError
from tests.data.conftest import save_image
from tests.data.test_crops import reader


@pytest.fixture
def folders(tmp_path):
    """Folders a (images 0 … 2) and b (images 10, 11), whose files have the same names."""
    for number in range(3):
        save_image(tmp_path / "a" / f"{number}.png", number)
    for number in range(2):
        save_image(tmp_path / "b" / f"{number}.png", 10 + number)
    return tmp_path


def paths(folders) -> str:
    return f"{folders / 'a'},{folders / 'b'}/"


def test_records_are_numbered_through_all_folders(folders):
    source = ImageFolders([ImageFiles(str(folders / "a"), ["0.png", "2.png"]), ImageFiles(f"{folders}/b/", ["1.png"])])
    assert len(source) == 3
    assert [source.name(record) for record in range(3)] == ["a/0.png", "a/2.png", "b/1.png"]
    assert [source.read(record)[0, 0, 0] for record in range(3)] == [0, 2, 11]
    with pytest.raises(IndexError):
        source.read(3)


def test_every_folder_is_trained_on(folders, data_config):
    config = data_config(path=paths(folders), batch_size=5, max_downscale=1.0)
    names = [open_sources(config).training.name(record, 0) for record in range(5)]
    assert names == ["a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png"]
    with open_batches(config, process_index=0, process_count=1, first_step=0) as batches:
        batch = next(batches)
    assert sorted(batch.names) == names
    assert sorted(batch.images[:, 0, 0, 0].tolist()) == [0, 1, 2, 10, 11]


def test_commas_without_a_second_folder_change_nothing(folders, data_config):
    source = open_sources(data_config(path=f"{folders / 'a'},")).training
    assert [source.name(record, 0) for record in range(len(source))] == ["0.png", "1.png", "2.png"]


def test_a_validation_folder_below_one_of_them_is_left_out(folders, data_config):
    save_image(folders / "b" / "measured" / "x.png", 99)
    config = data_config(path=paths(folders), validation=str(folders / "b" / "measured"))
    training = open_sources(config).training
    assert [training.name(record, 0) for record in range(len(training))][3:] == ["b/0.png", "b/1.png"]
    assert [name for name, _ in validation_images(config)] == ["x.png"]


def test_mistakes_are_named(folders, data_config):
    with pytest.raises(ConfigError, match="data.validation must be a folder"):
        open_sources(data_config(path=paths(folders), validation="0.png"))
    with pytest.raises(ConfigError, match=r"data\.path is .*absent.*not a folder"):
        open_sources(data_config(path=f"{folders / 'a'},{folders / 'absent'}"))
    with pytest.raises(ConfigError, match=r"inside data\.path \(.*b"):
        check_workdir(data_config(path=paths(folders)), folders / "b" / "run")
    check_workdir(data_config(path=paths(folders)), folders / "run")


def scale(crop: np.ndarray) -> float:
    """How many of the image's pixels a crop's pixel covers: green is the image's row."""
    rows = crop[8:-8, 32, 1].astype(float)
    return np.polyfit(np.arange(len(rows)), rows, 1)[0]


def test_half_of_the_crops_are_scaled_down(tmp_path):
    folder = tmp_path / "images"
    save_image(folder / "0.png", 0, height=250, width=250)
    crops = reader(folder, max_downscale=3.0)
    images = [crops(position)["image"] for position in range(80)]
    assert {image.shape for image in images} == {(64, 64, 3)}
    scales = np.array([scale(image) for image in images])
    unscaled = np.isclose(scales, 1, atol=1e-9)
    assert 0.35 < unscaled.mean() < 0.65
    others = scales[~unscaled]
    assert others.min() < 1.5 and 2.5 < others.max() < 3.03
    np.testing.assert_array_equal(images[3], reader(folder, max_downscale=3.0)(3)["image"])


def test_no_crop_is_larger_than_its_image(folder):
    """The folder's images have 90 by 100 pixels."""
    crops = reader(folder, max_downscale=8.0)
    scales = [scale(crops(position)["image"]) for position in range(60)]
    assert 1.2 < max(scales) < 90 / 64 + 0.02


def test_without_downscaling_crops_are_as_they_were(folder):
    plain, explicit = reader(folder), reader(folder, max_downscale=1.0)
    for position in range(5):
        np.testing.assert_array_equal(plain(position)["image"], explicit(position)["image"])
    assert max(abs(scale(plain(position)["image"]) - 1) for position in range(20)) < 1e-9
