"""The metrics by name."""

import numpy as np
import pytest

from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.metrics.registry import IMAGE_METRICS, SET_METRICS, SetMetric, load_metric, load_set_metric
from tests.metrics.pairs import synthetic_pair


def available(load, name):
    try:
        return load(name)
    except CdcError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_a_worse_image_scores_worse_and_the_batch_does_not_matter(name):
    original, decoded = synthetic_pair(*((161, 187) if name == "ms-ssim-rgb" else (61, 83)))
    metric = available(load_metric, name)
    worse = decoded // 64 * 64
    reference = metric.reference(original)
    together = metric.score(reference, np.stack([decoded, worse]))
    apart = [metric.score(reference, image[None])[0] for image in (decoded, worse)]
    assert together == pytest.approx(apart, rel=1e-6)
    assert (together[0] > together[1]) == metric.higher_is_better
    assert metric.name == name and metric.label
    assert metric.unavailable(161, 161) is None


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'lpips-alex'"):
        load_metric("lpips-alx")
    with pytest.raises(ConfigError, match="did you mean 'fid'"):
        load_set_metric("FID2")


def test_fid_without_weights_names_the_file():
    with pytest.raises(CdcError, match=r"pt_inception-2015-12-05-6726825d\.pth with --fid-weights"):
        load_set_metric("fid")


def test_the_distance_of_vgg_features_is_never_called_fid():
    metric = available(load_set_metric, SET_METRICS[1])
    assert metric.name == "fd-vgg" and "FID" not in metric.label and not metric.higher_is_better


def test_vgg_features_of_patches():
    metric = available(load_set_metric, "fd-vgg")
    original, decoded = synthetic_pair(384, 300)
    a, b = (metric.patches_features(image) for image in (original, decoded))
    assert a.shape == (1, 512) and a.dtype == np.float32 and a.min() >= 0
    assert not np.allclose(a, b)
    assert metric.patches_features(original[:255]).shape == (0, 512)


def test_set_metric_resumes_where_it_was():
    def stand_in():
        return SetMetric("fd-mean", "distance of mean colors", lambda x: x.mean(axis=(1, 2)), 3)

    metric, other = stand_in(), stand_in()
    original, decoded = synthetic_pair(384, 600)
    assert np.isnan(metric.distance())
    metric.add(original, decoded)
    other.restore(metric.state())
    assert other.distance() == metric.distance() > 0
    other.add(original[:255], decoded[:255])  # too small for a patch: adds nothing
    assert other.distance() == metric.distance()
    other.add(decoded, original)  # now both sides have the same images
    assert other.distance() == pytest.approx(0, abs=1e-3 * metric.distance())
    with pytest.raises(CdcError, match="start its evaluation again"):
        other.restore({"reference": np.zeros((2, 5)), "decoded": np.zeros((2, 5))})
