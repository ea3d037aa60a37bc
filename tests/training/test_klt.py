"""The transform's initialization: principal components of the training images' patches."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_jax.errors import ConfigError, ImageError
from cdc_jax.training.klt import image_klt, klt_of_moments

PATCHES = 3200  # a little more than the 3072 that 768 values need


class Images:
    """A source of images in memory; None stands for an unreadable one."""

    frames = 1

    def __init__(self, images):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def read(self, record: int, frame: int) -> np.ndarray:
        if self._images[record] is None:
            raise ImageError(f"{record} is corrupt")
        return self._images[record]


def photographs(count: int = 4, side: int = 64) -> list[np.ndarray]:
    """Images correlated like photographs: noise at every scale."""
    random, images = np.random.default_rng(0), []
    for _ in range(count):
        image = random.normal(0, 4, (side, side, 3))
        for scale in (2, 8, 32):
            coarse = random.normal(0, 2 * scale, (side // scale, side // scale, 3))
            image += np.kron(coarse, np.ones((scale, scale, 1)))
        images.append(np.clip(128 + image, 0, 255).astype(np.uint8))
    return images


def klt(images, components: int = 24, patches: int = PATCHES, seed: int = 0):
    return image_klt(Images(images), components, patches=patches, seed=seed)


@pytest.fixture(scope="module")
def of_photographs():
    return klt(photographs())


def test_the_same_images_give_the_same_bits(of_photographs):
    again, other = klt(photographs()), klt(photographs(), seed=1)
    np.testing.assert_array_equal(again.basis, of_photographs.basis)
    np.testing.assert_array_equal(again.deviations, of_photographs.deviations)
    assert np.abs(other.deviations - of_photographs.deviations).max() > 1e-6


def test_basis_and_deviations(of_photographs):
    basis, deviations = of_photographs
    assert basis.shape == (768, 24) and deviations.shape == (24,)
    np.testing.assert_allclose(basis.T @ basis, np.eye(24), atol=1e-12)
    assert np.isfinite(deviations).all() and (np.diff(deviations) <= 0).all() and deviations[-1] > 0
    largest = np.abs(basis).argmax(axis=0)
    assert (basis[largest, np.arange(24)] > 0).all()


def test_deviations_are_those_of_the_coefficients(of_photographs):
    """The KLT is computed on a sample of patches; the deviations hold for all of them."""
    patches = [
        image[top : top + 16, left : left + 16].reshape(768) / 127.5 - 1
        for image in photographs()
        for top in range(0, 49, 3)
        for left in range(0, 49, 3)
    ]
    coefficients = np.array(patches) @ of_photographs.basis
    np.testing.assert_allclose(np.sqrt(np.mean(coefficients**2, axis=0)), of_photographs.deviations, rtol=0.15)


def test_eigenvectors_of_known_moments():
    random = np.random.default_rng(0)
    vectors, variances = np.linalg.qr(random.normal(size=(6, 6)))[0], np.array([9.0, 4, 1, 0.25, 1e-7, 0])
    result = klt_of_moments(vectors @ np.diag(variances) @ vectors.T, 4)
    np.testing.assert_allclose(result.deviations, [3, 2, 1, 0.5], rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(result.basis * vectors[:, :4], axis=0)), 1, rtol=1e-12)
    with pytest.raises(ConfigError, match="too flat"):
        klt_of_moments(vectors @ np.diag(variances) @ vectors.T, 5)


@pytest.mark.parametrize("useless", [None, np.zeros((15, 400, 3), np.uint8)], ids=["unreadable", "too small"])
def test_images_that_cannot_be_used_are_skipped(useless):
    """Patches of the other images are drawn as if the unusable one did not exist."""
    images = photographs()
    with_it, without = klt([*images[:3], useless], patches=4400), klt([*images[:3], None], patches=4400)
    np.testing.assert_array_equal(with_it.basis, without.basis)
    assert np.isfinite(with_it.basis).all()
    assert (klt(images, patches=4400).deviations != without.deviations).any()


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        ([], {}, "not 0 for 24.*add images"),
        ([None, None], {}, "not 0 for 24"),
        (photographs(1), {"patches": 3071}, "not 3071 for 24: raise init.klt_patches"),
        (photographs(1), {"components": 769}, "at most 768 components, not 3200 for 769"),
        ([np.full((64, 64, 3), 90, np.uint8)] * 2, {}, "too flat"),
        ([np.zeros((64, 64, 3), np.uint8)] * 2, {"components": 2}, "too flat"),
    ],
    ids=["none", "all unreadable", "few patches", "many components", "flat", "black"],
)
def test_images_without_a_klt_are_an_error(images, arguments, message):
    with pytest.raises(ConfigError, match=message):
        klt(images, **arguments)
