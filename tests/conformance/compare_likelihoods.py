"""The entropy model of training: logits, likelihoods, medians and rates in float32, against TFC's in float64."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_compression as tfc
from oracle import cdf_logits, deep_factorized, probability

LIKELIHOOD_MIN = 1e-9  # our rate's lower bound on likelihoods

LOGIT_LIMIT = 1e-5  # relative to max(1, |logit|)
ABSOLUTE_LIMIT = 2e-6
RELATIVE_LIMIT = 1e-3  # for likelihoods of 1e-9 and more
MEDIAN_LIMIT = 2e-4  # difference in probability
RATE_LIMIT = 2e-5  # relative; ours are summed in float32


def logit_difference(arrays: dict) -> float:
    expected = cdf_logits(deep_factorized(arrays), arrays["value"])
    return float(np.max(np.abs(arrays["logit"] - expected) / np.maximum(1, np.abs(expected))))


def likelihood_differences(ours: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """(largest absolute difference, largest relative difference for likelihoods of 1e-9 and more)."""
    difference = np.abs(ours - expected)
    counts = expected >= LIKELIHOOD_MIN
    assert counts.mean() > 0.5
    return float(difference.max()), float(np.max(difference[counts] / expected[counts]))


def bounded_bits(likelihood: np.ndarray) -> float:
    return float(-np.log2(np.maximum(likelihood, LIKELIHOOD_MIN)).sum())


def noisy_normal(gaussian: dict, scale_factor: float = 1.0) -> np.ndarray:
    mean, scale = (tf.constant(gaussian[name], tf.float64) for name in ("mean", "scale"))
    return probability(tfc.NoisyNormal(loc=mean, scale=scale * scale_factor), gaussian["value"])


def with_one_change(arrays: dict, name: str, change: float = 0.01) -> dict:
    """The same parameters with one number of one channel changed."""
    changed = arrays[name].copy()
    changed.flat[changed.size // 2] += change
    return {**arrays, name: changed}


def test_logits(arrays, report):
    difference = logit_difference(arrays)
    report("CDF logits, relative", f"{difference:.1e}", f"{LOGIT_LIMIT:.0e}")
    assert difference <= LOGIT_LIMIT


@pytest.mark.parametrize("name", [*(f"weights_{k}" for k in range(4)), "biases_0", "biases_3", "gains_2"])
def test_logits_detect_a_wrong_parameter(arrays, name):
    assert logit_difference(with_one_change(arrays, name)) > 2 * LOGIT_LIMIT


def test_factorized_likelihood(arrays, report):
    expected = probability(deep_factorized(arrays), arrays["value"])
    absolute, relative = likelihood_differences(arrays["likelihood"], expected)
    report("p(z), absolute", f"{absolute:.1e}", f"{ABSOLUTE_LIMIT:.0e}")
    report("p(z) >= 1e-9, relative", f"{relative:.1e}", f"{RELATIVE_LIMIT:.0e}")
    assert absolute <= ABSOLUTE_LIMIT and relative <= RELATIVE_LIMIT


def test_factorized_likelihood_detects_a_wrong_parameter(arrays):
    expected = probability(deep_factorized(with_one_change(arrays, "weights_3")), arrays["value"])
    assert likelihood_differences(arrays["likelihood"], expected)[1] > RELATIVE_LIMIT


def test_medians(case, arrays, report):
    """The medians' loss. At its minimum, half of TFC's density is on either side."""
    noisy = deep_factorized(arrays)
    expected = np.abs(cdf_logits(noisy, arrays["medians"][None])).sum()
    difference = abs(arrays["median_loss"] - expected) / len(arrays["medians"])
    report("medians' loss, per channel", f"{difference:.1e}", f"{LOGIT_LIMIT:.0e}")
    assert difference <= LOGIT_LIMIT
    if case.startswith("trained"):
        below = noisy.base.cdf(arrays["medians"].astype(np.float64)).numpy()
        largest = float(np.abs(below - 0.5).max())
        report("TFC's CDF at our medians, less 1/2", f"{largest:.1e}", f"{MEDIAN_LIMIT:.0e}")
        assert largest <= MEDIAN_LIMIT


def test_medians_detect_a_wrong_one(arrays):
    moved = with_one_change(arrays, "medians", 0.1)["medians"]
    expected = np.abs(cdf_logits(deep_factorized(arrays), moved[None])).sum()
    assert abs(arrays["median_loss"] - expected) / len(moved) > LOGIT_LIMIT


def test_gaussian_likelihood(gaussian, report):
    absolute, relative = likelihood_differences(gaussian["likelihood"], noisy_normal(gaussian))
    report("p(y), absolute", f"{absolute:.1e}", f"{ABSOLUTE_LIMIT:.0e}")
    report("p(y) >= 1e-9, relative", f"{relative:.1e}", f"{RELATIVE_LIMIT:.0e}")
    assert absolute <= ABSOLUTE_LIMIT and relative <= RELATIVE_LIMIT


def test_gaussian_likelihood_detects_a_wrong_scale(gaussian):
    absolute, relative = likelihood_differences(gaussian["likelihood"], noisy_normal(gaussian, 1.0005))
    assert absolute > ABSOLUTE_LIMIT and relative > RELATIVE_LIMIT


def test_rates_of_images(arrays, gaussian, report):
    prior, differences = deep_factorized(arrays), []
    for k in range(len(arrays["z_bits"])):
        z, y, index = (arrays[f"{name}_{k}"] for name in ("symbol_z", "symbol_y", "scale_index"))
        normal = tfc.NoisyNormal(loc=tf.constant(0, tf.float64), scale=tf.constant(gaussian["scales"][index]))
        z_bits = bounded_bits(probability(prior, z + arrays["medians"].astype(np.float64)))
        y_bits = bounded_bits(probability(normal, y))
        differences += [abs(arrays["z_bits"][k] / z_bits - 1), abs(arrays["y_bits"][k] / y_bits - 1)]
    report("float rates of images, relative", f"{max(differences):.1e}", f"{RATE_LIMIT:.0e}")
    assert max(differences) <= RATE_LIMIT


def test_rates_detect_a_wrong_scale(arrays, gaussian):
    y, index = arrays["symbol_y_0"], arrays["scale_index_0"]
    scale = tf.constant(gaussian["scales"][index] * 1.01)
    y_bits = bounded_bits(probability(tfc.NoisyNormal(loc=tf.constant(0, tf.float64), scale=scale), y))
    assert abs(arrays["y_bits"][0] / y_bits - 1) > RATE_LIMIT
