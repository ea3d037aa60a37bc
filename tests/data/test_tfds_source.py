"""TFDS data sets in ArrayRecord files, written by the tests from photographs and read without TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.data.pipeline import open_batches
from cdc_jax.data.sources import open_sources, validation_images
from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.io.images import read_image
from tests.data.array_record import write_data_set
from tests.helpers.processes import fast_environment

tfds = pytest.importorskip("tensorflow_datasets", reason="TFDS comes with pip install '.[train]'")

PHOTOGRAPHS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png"]  # the last one is gray


@pytest.fixture(scope="module")
def photographs():
    """Paths of the photographs."""
    skimage = pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    return [Path(skimage.__file__).parent / "data" / name for name in PHOTOGRAPHS]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, photographs):
    """Two data sets: `photos` with the features of imagenet2012, `clic` with those of TFDS's data set of that name."""
    data_dir = tmp_path_factory.mktemp("tfds")
    image = tfds.features.Image
    examples = [
        {"image": path.read_bytes(), "file_name": path.name, "label": number} for number, path in enumerate(photographs)
    ]
    splits = {"train": examples[:3], "validation": examples[3:]}
    features = {"image": image(), "file_name": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=9)}
    write_data_set(data_dir, "photos", features, splits)
    write_data_set(data_dir, "clic", {"image": image()}, {"train": [{"image": str(path)} for path in photographs]})
    corrupt = {"image": b"not an image", "file_name": "n01.JPEG", "label": 0}
    write_data_set(data_dir, "corrupt", features, {"train": [corrupt, *examples]})
    return data_dir


@pytest.fixture
def tfds_config(data_dir, data_config):
    def build(**changes):
        return data_config(**{"source": "tfds", "path": str(data_dir), "name": "photos", "batch_size": 3, **changes})

    return build


def test_records_are_the_photographs(tfds_config, photographs):
    source = open_sources(tfds_config(split="train+validation")).training
    read = {source.read(record).tobytes() for record in range(len(source))}
    assert read == {read_image(path).tobytes() for path in photographs}


def test_splits_and_validation_records(tfds_config):
    config = tfds_config(split="train[1:]", validation="validation[:1]")
    assert len(open_sources(config).training) == 2
    ((name, image),) = validation_images(config)
    assert name == "photos validation[:1] #0" and image.ndim == 3 and image.dtype == np.uint8
    with open_batches(tfds_config(), process_index=0, process_count=1, first_step=0) as batches:
        assert sorted(next(batches).names) == [f"photos train #{number}" for number in range(3)]


def test_a_data_set_that_tfds_has_code_for(tfds_config):
    """Like imagenet2012: its class is part of TFDS, its files are in the folder."""
    with open_batches(tfds_config(name="clic"), process_index=1, process_count=3, first_step=2) as batches:
        assert next(batches).images.shape == (1, 64, 64, 3)


def test_a_corrupt_record_is_skipped_and_named(tfds_config, caplog):
    config = tfds_config(name="corrupt", max_corrupt_fraction=0.2)
    with open_batches(config, process_index=0, process_count=1, first_step=0) as batches:
        for _ in range(4):
            next(batches)
        assert batches.counters()["corrupt"] >= 2
    assert any("corrupt train #" in message and "n01.JPEG" in message for message in caplog.messages)


READING = """
import json, sys
from cdc_jax.training.config import default_config
from cdc_jax.data.pipeline import open_batches
from cdc_jax.data.sources import validation_images

config = default_config()
config.data.update({"source": "tfds", "path": sys.argv[1], "name": "photos", "crop": 64, "validation": "validation"})
with open_batches(config, process_index=0, process_count=1, first_step=0) as batches:
    shapes = [next(batches).images.shape for _ in range(3)]
imported = [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]
print(json.dumps([shapes, len(validation_images(config)), imported]))
"""


def test_tensorflow_is_not_imported(data_dir, tmp_path):
    """Not even if it is installed: an empty package of that name could be imported."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("")
    (tmp_path / "read.py").write_text(READING)  # beside the empty package, so that this one is found first
    command = [sys.executable, str(tmp_path / "read.py"), str(data_dir)]
    finished = subprocess.run(command, capture_output=True, text=True, env=fast_environment(), timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    shapes, validation, imported = json.loads(finished.stdout.splitlines()[-1])
    assert shapes == [[4, 64, 64, 3]] * 3 and validation == 2
    assert imported == []


# -- what is missing ---------------------------------------------------------------------------------------------------


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["imagenet2012", "imagenet2012:5.1.0", "cifar10"])
def test_data_that_are_not_prepared(tfds_config, data_dir, name):
    with pytest.raises(CdcError) as error:
        open_batches(tfds_config(name=name), process_index=0, process_count=1, first_step=0)
    message = one_line(error)
    assert f"`tfds build {name} --file_format=array_record --data_dir={data_dir}" in message
    assert ("--manual_dir" in message) == name.startswith("imagenet2012")


def test_data_in_a_format_without_random_access(tfds_config, tmp_path, data_dir):
    """As prepared by `tfds build` without --file_format."""
    import shutil

    shutil.copytree(data_dir / "photos", tmp_path / "photos")
    info = tmp_path / "photos" / "1.0.0" / "dataset_info.json"
    settings = json.loads(info.read_text())
    settings["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(settings))
    with pytest.raises(CdcError) as error:
        open_sources(tfds_config(path=str(tmp_path)))
    assert "is prepared as tfrecord" in one_line(error) and "--file_format=array_record" in one_line(error)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "no_such_data_set"}, "no data set 'no_such_data_set'"),
        ({"name": "cifar10/xx:9.9.9"}, "cifar10/xx:9.9.9"),
        ({"name": ""}, "data.name is empty"),
        ({"split": "trian"}, "data.split is 'trian'.+train, validation"),
        ({"validation": "test"}, "data.validation is 'test'.+train, validation"),
        ({"validation": "train[:1]"}, "shares records"),
        ({"validation": "validation[:0]"}, "names no records"),
    ],
)
def test_mistakes(tfds_config, changes, words):
    with pytest.raises(CdcError, match=words) as error:
        open_sources(tfds_config(**changes))
    one_line(error)


def test_validation_records_may_be_the_rest_of_the_split(tfds_config):
    sources = open_sources(tfds_config(split="train[1:]", validation="train[:1]"))
    assert len(sources.training) == 2 and len(sources.validation) == 1


def test_records_without_images(tfds_config, data_dir):
    write_data_set(data_dir, "texts", {"file_name": tfds.features.Text()}, {"train": [{"file_name": "a"}]})
    with pytest.raises(ConfigError, match="0 images"):
        open_sources(tfds_config(name="texts"))


def test_tfds_is_missing(tfds_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(CdcError, match=r"pip install '\.\[train\]'"):
        open_sources(tfds_config())
