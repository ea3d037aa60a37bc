"""PSNR, SSIM and MS-SSIM agree with scikit-image and pytorch-msssim to 1e-4."""

import numpy as np
import pytest

from cdc_jax.metrics.distortion import psnr_db
from cdc_jax.metrics.registry import load_metric
from tests.metrics.pairs import photograph_pair, synthetic_pair

# Values of pytorch-msssim 1.0.0 in float64. 161 is its smallest side; both sizes have odd sides at several scales.
MS_SSIM_SYNTHETIC = 0.9705971624
MS_SSIM_PHOTOGRAPH = 0.9639685349


def score(name, original, *decoded):
    metric = load_metric(name)
    return metric.score(metric.reference(original), np.stack(decoded))


@pytest.fixture(params=["synthetic", "photograph"])
def pair(request):
    if request.param == "synthetic":
        return synthetic_pair(61, 83)
    return photograph_pair(request.getfixturevalue("photograph"), 64)


def test_psnr_is_scikit_images(pair):
    skimage = pytest.importorskip("skimage.metrics")
    expected = skimage.peak_signal_noise_ratio(*pair, data_range=255)
    assert score("psnr-rgb", *pair)[0] == pytest.approx(expected, abs=1e-4)
    assert psnr_db(*pair) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_luma_is_scikit_images(pair):
    skimage = pytest.importorskip("skimage.metrics")
    from skimage.color import rgb2ycbcr

    # scikit-image's Y has video range, 16 to 235; convert it to 0 to 255.
    luma = [(rgb2ycbcr(image)[..., 0] - 16) * 255 / 219 for image in pair]
    expected = skimage.peak_signal_noise_ratio(*luma, data_range=255)
    assert score("psnr-y", *pair)[0] == pytest.approx(expected, abs=1e-4)


def test_ssim_is_scikit_images(pair):
    skimage = pytest.importorskip("skimage.metrics")
    expected = skimage.structural_similarity(
        *pair, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert score("ssim", *pair)[0] == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_is_what_pytorch_msssim_gave():
    assert score("ms-ssim-rgb", *synthetic_pair(161, 187))[0] == pytest.approx(MS_SSIM_SYNTHETIC, abs=1e-4)


def test_ms_ssim_of_a_photograph_is_what_pytorch_msssim_gave(photograph):
    pair = photograph_pair(photograph, 181)
    assert score("ms-ssim-rgb", *pair)[0] == pytest.approx(MS_SSIM_PHOTOGRAPH, abs=1e-4)


@pytest.mark.torch
def test_ms_ssim_is_pytorch_msssims():
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("pytorch_msssim")
    original, decoded = synthetic_pair(161, 187)
    decoded[40:90, 30:90] = 255 - decoded[40:90, 30:90]  # makes a negative structure term, which counts as 0
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None].double() for image in (original, decoded)]
    expected = float(peer.ms_ssim(*tensors, data_range=255))
    assert score("ms-ssim-rgb", original, decoded)[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("name", "best"), [("psnr-rgb", np.inf), ("psnr-y", np.inf), ("ssim", 1), ("ms-ssim-rgb", 1)])
def test_equal_images_have_the_best_score(name, best):
    original, decoded = synthetic_pair(161, 187)
    scores = score(name, original, original, decoded)
    assert scores.dtype == np.float64
    assert scores[0] == pytest.approx(best, abs=1e-6) and scores[0] <= best
    assert scores[1] < scores[0]


@pytest.mark.parametrize(("name", "side"), [("ms-ssim-rgb", 161), ("ssim", 11)])
def test_too_small_images_have_no_score_and_a_reason(name, side):
    metric = load_metric(name)
    small = np.zeros((side - 1, 200, 3), np.uint8)
    assert np.isnan(metric.score(metric.reference(small), np.stack([small, small]))).tolist() == [True, True]
    assert str(side) in metric.unavailable(side - 1, 200)
    assert metric.unavailable(side, side) is None
    least = np.zeros((side, side, 3), np.uint8)
    assert np.isfinite(metric.score(metric.reference(least), least[None])).all()
