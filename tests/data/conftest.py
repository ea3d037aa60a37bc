"""Small folders of images, whose colors identify the image and position of a crop, and configurations for them."""

from __future__ import annotations

from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image

from cdc_jax.training.config import default_config
from cdc_jax.training.config_checks import check_config


def save_image(path: Path, number: int, height: int = 90, width: int = 100) -> None:
    """An image whose red is `number`, whose green is the row and whose blue is the column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:height, :width]
    Image.fromarray(np.stack([np.full_like(rows, number), rows, columns], -1).astype(np.uint8)).save(path)


def corrupt_images(folder: Path) -> list[str]:
    """Adds three corrupt images, and returns their names: a damaged PNG, a truncated JPEG, text named .png."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "b_damaged.png")
    content = bytearray((folder / "b_damaged.png").read_bytes())
    content[2000:2100] = bytes(100)
    (folder / "b_damaged.png").write_bytes(content)
    Image.fromarray(noise).save(folder / "b_truncated.jpg")
    content = (folder / "b_truncated.jpg").read_bytes()
    (folder / "b_truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "b_text.png").write_text("not an image")
    return ["b_damaged.png", "b_text.png", "b_truncated.jpg"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Nine valid images, 0.png … 8.png."""
    for number in range(9):
        save_image(tmp_path / "images" / f"{number}.png", number)
    return tmp_path / "images"


@pytest.fixture
def data_config(folder):
    """data_config(crop=…, …): a checked configuration for `folder`, by default with 64-pixel crops in batches of 4."""

    def build(*, seed: int = 3, **changes) -> ml_collections.ConfigDict:
        config = default_config()
        config.seed = seed
        settings = {"source": "folder", "path": str(folder), "crop": 64, "batch_size": 4, "flip": True, **changes}
        config.data.update(settings)
        check_config(config)
        return config

    return build
