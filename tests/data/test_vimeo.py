"""Vimeo-90k septuplets from a list file."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_jax.data.pipeline import open_batches
from cdc_jax.data.sources import open_sources, validation_images
from cdc_jax.errors import ConfigError
from tests.data.conftest import save_image


@pytest.fixture
def root(tmp_path):
    """Twelve septuplets, ten for training and two for testing; frame j of septuplet i has red 10·i + j."""
    names = [f"{i // 5 + 1:05}/{i % 5 + 1:04}" for i in range(12)]
    for i, name in enumerate(names):
        for frame in range(7):
            save_image(tmp_path / "vimeo" / "sequences" / name / f"im{frame + 1}.png", 10 * i + frame, 64, 72)
    (tmp_path / "vimeo" / "sep_trainlist.txt").write_text("\n".join(names[:10]) + "\n\n")
    (tmp_path / "vimeo" / "sep_testlist.txt").write_text("\r\n".join(names[10:]) + "\r\n")
    return tmp_path / "vimeo"


@pytest.fixture
def vimeo_config(root, data_config):
    def build(**changes):
        return data_config(**{"source": "vimeo90k", "path": str(root), "batch_size": 10, **changes})

    return build


def test_a_random_frame_of_each_septuplet(vimeo_config):
    frames = {}
    with open_batches(vimeo_config(), process_index=0, process_count=1, first_step=0) as batches:
        for _ in range(30):
            batch = next(batches)
            numbers = batch.images[:, 0, 0, 0]
            assert sorted(numbers // 10) == list(range(10))  # one epoch
            for name, number in zip(batch.names, numbers, strict=True):
                septuplet, _, frame = name.rpartition("/")
                assert frame == f"im{number % 10 + 1}.png"
                frames.setdefault(septuplet, []).append(int(number % 10))
    assert all(len(set(drawn)) > 4 for drawn in frames.values())
    counts = np.bincount(sum(frames.values(), []), minlength=7)
    assert counts.sum() == 300 and counts.min() > 20


def test_validation_septuplets_give_their_middle_frame(vimeo_config):
    validation = validation_images(vimeo_config(validation="sep_testlist.txt"))
    assert [name for name, _ in validation] == ["00003/0001/im4.png", "00003/0002/im4.png"]
    assert [int(image[0, 0, 0]) for _, image in validation] == [103, 113]


def test_the_first_eight_of_a_list_are_for_validation_and_not_trained_on(vimeo_config):
    config = vimeo_config(validation="sep_trainlist.txt")
    assert len(validation_images(config)) == 8
    assert list(open_sources(config).training.septuplets) == ["00002/0004", "00002/0005"]


def test_another_list_by_path(vimeo_config, tmp_path):
    (tmp_path / "mine.txt").write_text("00001/0003\n")
    assert open_sources(vimeo_config(list_file=str(tmp_path / "mine.txt"))).training.septuplets == ["00001/0003"]


def test_missing_data_are_reported(vimeo_config, root, tmp_path):
    with pytest.raises(ConfigError, match=r"vimeo_septuplet\.zip"):
        open_sources(vimeo_config(path=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="data.list_file is 'no.txt'"):
        open_sources(vimeo_config(list_file="no.txt"))
    with pytest.raises(ConfigError, match="data.validation is 'no.txt'"):
        open_sources(vimeo_config(validation="no.txt"))
    (root / "empty.txt").write_text("\n")
    with pytest.raises(ConfigError, match="lists no septuplets"):
        open_sources(vimeo_config(list_file="empty.txt"))
    (root / "other.txt").write_text("99999/0001\n")
    with pytest.raises(ConfigError, match="99999/0001 is not in"):
        open_sources(vimeo_config(list_file="other.txt"))
