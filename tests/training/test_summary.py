"""What a finished run shows: its file beside the original, JPEG and, where there is one, the shipped model."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cdc_jax.codec import bundle_folder
from cdc_jax.training.summary import compared, side_by_side


@pytest.fixture
def file_and_image(compact_codec, photograph):
    image = photograph[:256, :384]
    return compact_codec.compress(image, quality=100), image


def test_the_file_is_shown_beside_the_original_and_jpeg(compact_codec, file_and_image, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_folder, "_SHIPPED", tmp_path / "none")
    data, image = file_and_image
    panels = compared("cat.png", image, compact_codec, data)
    assert [re.split("[:,]", panel.caption)[0] for panel in panels] == ["original", "JPEG", "this model"]
    np.testing.assert_array_equal(panels[0].image, image)
    np.testing.assert_array_equal(panels[2].image, compact_codec.decompress(data))
    bpp = [float(re.search(r"([\d.]+) bpp", panel.caption)[1]) for panel in panels[1:]]
    assert bpp[0] <= bpp[1] + 1e-3 and bpp[1] == pytest.approx(8 * len(data) / image[..., 0].size, abs=1e-3)


def test_the_shipped_model_s_file_is_at_most_as_large(compact_codec, compact_bundle, file_and_image, monkeypatch):
    monkeypatch.setattr(bundle_folder, "_SHIPPED", compact_bundle)
    data, image = file_and_image
    *_, ours, shipped = compared("cat.png", image, compact_codec, data)
    assert shipped.caption.startswith("the model of the package")
    bpp = [float(re.search(r"([\d.]+) bpp", panel.caption)[1]) for panel in (ours, shipped)]
    assert 0.98 * bpp[0] < bpp[1] <= bpp[0]


def test_the_sheet_has_a_caption_over_each_image():
    images = [np.full((40, 60, 3), 50 * i, np.uint8) for i in range(4)]
    for count, shape in ((2, (68, 120, 3)), (3, (68, 180, 3)), (4, (136, 120, 3))):
        sheet = side_by_side([(f"image {i}", image) for i, image in enumerate(images[:count])])
        assert sheet.shape == shape
    for i, image in enumerate(images):
        y, x = 68 * (i // 2) + 28, 60 * (i % 2)
        np.testing.assert_array_equal(sheet[y : y + 40, x : x + 60], image)
        assert (sheet[y - 28 : y, x : x + 60] < 128).any()  # letters
