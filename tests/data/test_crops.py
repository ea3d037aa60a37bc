"""The crop at each position."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cdc_jax.data.crops import CropReader, crop_at
from cdc_jax.data.folders import ImageFiles
from cdc_jax.data.sharding import GlobalOrder


def reader(folder, *, size=64, flip=False, upscale=False, seed=0, **options):
    names = sorted(path.name for path in folder.iterdir())
    order = GlobalOrder(len(names), seed)
    return CropReader(ImageFiles(str(folder), names), order, seed, size, flip, upscale, **options)


def test_crops_are_cut_from_the_images_at_any_position(folder):
    corners, crops = set(), reader(folder)
    for position in range(60):
        crop = crops(position)
        image, name = crop["image"].astype(int), crop["report"].name
        assert image.shape == (64, 64, 3) and crop["image"].dtype == np.uint8
        assert (image[..., 0] == int(name.removesuffix(".png"))).all()
        assert (np.diff(image[..., 1], axis=0) == 1).all() and (np.diff(image[..., 2], axis=1) == 1).all()
        corners.add((image[0, 0, 1], image[0, 0, 2]))
    tops, lefts = zip(*corners, strict=True)
    assert min(tops) <= 3 and max(tops) >= 23 and max(tops) <= 26  # 90 − 64
    assert min(lefts) <= 4 and max(lefts) >= 32 and max(lefts) <= 36  # 100 − 64


def test_half_of_the_crops_are_mirrored(folder):
    crops = reader(folder, flip=True)
    mirrored = [crops(position)["image"].astype(int) for position in range(100)]
    share = np.mean([image[0, 0, 2] > image[0, 1, 2] for image in mirrored])
    assert 0.35 < share < 0.65


def test_a_crop_follows_from_seed_and_position(folder):
    first, again, other = reader(folder, seed=1), reader(folder, seed=1), reader(folder, seed=2)
    for position in (5, 0, 10**9):
        np.testing.assert_array_equal(first(position)["image"], again(position)["image"])
    assert any((first(position)["image"] != other(position)["image"]).any() for position in range(3))


def test_the_ends_of_the_range_are_whole_crops():
    image = np.random.default_rng(0).integers(0, 256, (70, 64, 3), dtype=np.uint8)
    last = np.nextafter(1, 0)
    np.testing.assert_array_equal(crop_at(image, 64, 0.0, 0.0, 1.0, flip=True), image[:64])
    np.testing.assert_array_equal(crop_at(image, 64, last, last, 1.0, flip=True), image[6:])
    np.testing.assert_array_equal(crop_at(image, 64, 0.0, 0.0, 0.0, flip=True), image[:64, ::-1])


@pytest.mark.parametrize(("height", "width"), [(20, 31), (50, 200), (200, 50), (63, 64), (1, 1)])
@pytest.mark.parametrize("draw", [0.0, 0.4, np.nextafter(1, 0)])
def test_scaling_up_is_bicubic_with_the_short_side_as_long_as_the_crop(height, width, draw):
    # Use medium values: Pillow clips between its two passes, whose order depends on the shape.
    image = np.random.default_rng(0).integers(64, 192, (height, width, 3), dtype=np.uint8)
    scale = 64 / min(height, width)
    scaled = round(height * scale), round(width * scale)
    whole = np.asarray(Image.fromarray(image).resize(scaled[::-1], Image.Resampling.BICUBIC)).astype(int)
    top, left = int(draw * (scaled[0] - 63)), int(draw * (scaled[1] - 63))
    crop = crop_at(image, 64, draw, draw, 1.0, flip=False)
    assert crop.shape == (64, 64, 3)
    assert np.abs(crop - whole[top : top + 64, left : left + 64]).max() <= 2


def test_an_image_of_one_row_does_not_take_all_memory():
    row = np.zeros((1, 2**24, 3), np.uint8)  # scaled up as a whole: 3 · 2³⁶ bytes
    assert crop_at(row, 64, 0.5, 0.5, 1.0, flip=False).shape == (64, 64, 3)


def test_small_sources_are_decoded_once(folder, monkeypatch):
    reads = []
    plain = ImageFiles.read
    monkeypatch.setattr(ImageFiles, "read", lambda self, *args: reads.append(args) or plain(self, *args))
    crops = reader(folder)
    for position in range(40):
        crops(position)
    assert len(reads) == 9


def test_memory_for_decoded_images_is_bounded(folder):
    crops = reader(folder, cache_bytes=2 * 90 * 100 * 3)
    for position in range(40):
        crops(position)
    assert len(crops._cache) == 2
