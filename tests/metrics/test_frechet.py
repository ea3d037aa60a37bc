"""The Fréchet distance and its patches."""

import numpy as np
import pytest

from cdc_jax.metrics.frechet import frechet_distance, patches


def exact_sample(mean, covariance, n, rng):
    """n features with exactly this sample mean and covariance."""
    white = rng.normal(size=(n, len(mean)))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T)).T)
    return white @ np.linalg.cholesky(covariance).T + mean


def test_gaussians_whose_distance_is_known():
    rng = np.random.default_rng(0)
    a = exact_sample(np.array([1.0, 2.0, 3.0]), np.diag([4.0, 9.0, 1.0]), 50, rng)
    b = exact_sample(np.array([1.0, 0.0, 3.0]), np.diag([1.0, 1.0, 16.0]), 40, rng)
    assert frechet_distance(a, b) == pytest.approx(4 + 1 + 4 + 9, abs=1e-9)  # ‖μ₁-μ₂‖² + Σ (σ₁-σ₂)²
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + [0.0, 3.0, 4.0]) == pytest.approx(25, abs=1e-9)


@pytest.mark.parametrize("count", [60, 9], ids=["more than dimensions", "fewer than dimensions"])
def test_scipys_matrix_root_gives_the_same(count):
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(16, 16))
    a, b = rng.normal(size=(count, 16)) @ mixing, rng.normal(1, 2, size=(count + 3, 16)) @ mixing.T
    covariances = np.cov(a.T), np.cov(b.T)
    offset = 0 if count > 16 else 1e-10 * np.eye(16)  # sqrtm does not support singular matrices
    root = linalg.sqrtm((covariances[0] + offset) @ (covariances[1] + offset)).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6 if count > 16 else 1e-4)


def test_too_few_features_are_refused():
    with pytest.raises(ValueError):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [
        (512, 768, 8),
        (768, 512, 8),
        (256, 256, 1),
        (384, 384, 2),
        (383, 600, 2),
        (255, 900, 0),
    ],
)
def test_patches_are_both_grids(height, width, count):
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], -1).astype(np.uint8)
    squares = patches(image)
    assert squares.shape == (count, 256, 256, 3)
    corners = [
        (int(p[0, 0, 2]) // 16 * 256 + int(p[0, 0, 0]), int(p[0, 0, 2]) % 16 * 256 + int(p[0, 0, 1])) for p in squares
    ]
    grid = [(t, w) for s in (0, 128) for t in range(s, height - 255, 256) for w in range(s, width - 255, 256)]
    assert corners == grid
