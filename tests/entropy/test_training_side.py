"""The entropy model in training: likelihoods, their gradients, rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import norm

from cdc_jax.entropy.factorized import FactorizedPrior
from cdc_jax.entropy.gaussian import gaussian_likelihood
from cdc_jax.entropy.quantize import likelihood_bits, lower_bound, straight_through_round
from cdc_jax.entropy.tables import gaussian_tables, scale_table
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights

CHANNELS = 8


def scale_index(scale):
    """The index, 0 to 255, of the scale in `tables.scale_table` that is nearest in the logarithm."""
    scales = scale_table()
    midpoints = jnp.asarray((scales[:-1] * scales[1:]) ** 0.5, jnp.float32)
    return jnp.searchsorted(midpoints, scale, side="right")


def indexed_likelihood(y, mean, index):
    """`gaussian_likelihood` with the scale of an index: y's probability under a file's tables, up to rounding."""
    return gaussian_likelihood(y, mean, jnp.asarray(scale_table(), jnp.float32)[index])


@pytest.fixture(scope="module")
def prior():
    weights = initial_weights(ModelConfig(width=CHANNELS // 4), 3)
    model = FactorizedPrior(CHANNELS)
    random = np.random.default_rng(0)
    for kind, count in (("weights", 4), ("biases", 4), ("gains", 3)):
        for k in range(count):
            value = weights[f"compressor.prior.{kind}.{k}"]
            getattr(model, kind)[k][...] = jnp.asarray(value + random.normal(0, 0.2, value.shape), jnp.float32)
    model.medians[...] = jnp.asarray(random.normal(0, 1, CHANNELS), jnp.float32)
    return model


def test_factorized_probabilities_sum_to_one(prior):
    symbols = np.arange(-400, 401, dtype=np.float32)
    z = jnp.broadcast_to(symbols[:, None, None, None], (801, 1, 1, CHANNELS))
    total = np.asarray(prior.likelihood(z), np.float64).sum(axis=0)
    np.testing.assert_allclose(total, 1, atol=1e-4)


def test_factorized_cdf_rises(prior):
    x = jnp.broadcast_to(jnp.linspace(-30, 30, 500)[:, None], (500, CHANNELS))
    assert (jnp.diff(prior.cdf_logits(x), axis=0) > 0).all()


def test_factorized_tails_keep_their_precision(prior):
    far = prior.likelihood(jnp.full((1, 1, 1, CHANNELS), 60.0))
    assert (far > 0).all() and (far < 1e-3).all()
    mirrored = prior.likelihood(jnp.full((1, 1, 1, CHANNELS), -60.0))
    assert (mirrored > 0).all()


def test_median_loss_reaches_only_the_medians(prior):
    graphdef, state = nnx.split(prior, nnx.Param)
    gradients = jax.grad(lambda s: nnx.merge(graphdef, s).median_loss())(state)
    flat = {path[0]: leaf for path, leaf in nnx.to_flat_state(gradients)}
    assert float(jnp.abs(gradients["medians"][...]).min()) > 0
    for path, leaf in nnx.to_flat_state(gradients):
        if path[0] != "medians":
            assert not jnp.any(leaf[...]), path
    assert set(flat) == {"weights", "biases", "gains", "medians"}


def test_median_loss_vanishes_at_the_median(prior):
    low, high = jnp.full((CHANNELS,), -100.0), jnp.full((CHANNELS,), 100.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = prior.cdf_logits(middle[None])[0] < 0
        low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
    before = prior.medians[...]
    prior.medians[...] = middle
    assert prior.median_loss() < 1e-3
    prior.medians[...] = before


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_gaussian_against_scipy(scale):
    y = np.linspace(-4 * scale, 4 * scale, 41)
    expected = norm.cdf((y + 0.5 - 0.3) / scale) - norm.cdf((y - 0.5 - 0.3) / scale)
    found = gaussian_likelihood(jnp.asarray(y, jnp.float32), jnp.float32(0.3), jnp.float32(scale))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-30)


def test_gaussian_tails_are_not_zero():
    found = gaussian_likelihood(jnp.float32(10), jnp.float32(0), jnp.float32(1))
    assert found == pytest.approx(norm.sf(9.5) - norm.sf(10.5), rel=1e-3)


def test_rounding_is_half_to_even_around_the_offset():
    x = jnp.array([0.5, 1.5, 2.5, -0.5, 0.6])
    np.testing.assert_array_equal(straight_through_round(x, jnp.zeros(5)), [0, 2, 2, 0, 1])
    np.testing.assert_allclose(straight_through_round(x, jnp.full(5, 0.25)), [0.25, 1.25, 2.25, -0.75, 0.25])


def test_rounding_passes_the_gradient_only_to_x():
    def f(x, offset):
        return jnp.sum(straight_through_round(x, offset) * jnp.arange(1.0, 4.0))

    to_x, to_offset = jax.grad(f, argnums=(0, 1))(jnp.array([0.2, 1.7, -3.1]), jnp.array([0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(to_x, [1, 2, 3])
    np.testing.assert_array_equal(to_offset, [0, 0, 0])


def test_lower_bound_passes_gradients_that_increase_x():
    x = jnp.array([0.5, 2.0])
    np.testing.assert_array_equal(lower_bound(x, jnp.float32(1)), [1, 2])
    falling = jax.grad(lambda x: jnp.sum(lower_bound(x, jnp.float32(1))))(x)  # descent would lower x
    rising = jax.grad(lambda x: -jnp.sum(lower_bound(x, jnp.float32(1))))(x)
    np.testing.assert_array_equal(falling, [0, 1])
    np.testing.assert_array_equal(rising, [-1, -1])


def test_bits_are_per_image_and_finite():
    likelihood = jnp.array([[0.5, 0.25], [0.0, 1.0]])
    np.testing.assert_allclose(likelihood_bits(likelihood), [3, -np.log2(1e-9)], rtol=1e-5)
    assert likelihood_bits(likelihood.astype(jnp.bfloat16)).dtype == jnp.float32


def test_indexed_scales_are_the_nearest_ones():
    scales = scale_table()
    np.testing.assert_array_equal(scale_index(jnp.asarray(scales, jnp.float32)), np.arange(256))
    assert scale_index(jnp.float32(1e-3)) == 0 and scale_index(jnp.float32(1e6)) == 255
    between = np.exp(np.random.default_rng(0).uniform(np.log(0.1), np.log(256), 1000))
    nearest = np.abs(np.log(between[:, None] / scales)).argmin(axis=1)
    assert np.mean(np.asarray(scale_index(jnp.asarray(between, jnp.float32))) == nearest) > 0.995


def test_indexed_scales_agree_with_the_tables_that_files_use():
    """Compares integer thresholds and counts with their float counterparts."""
    tables = gaussian_tables(scale_table())
    for index in (0, 40, 128, 255):
        counts = np.asarray(tables[index], np.float64)[:-1]  # without the escape
        symbols = np.arange(len(counts)) + int(tables.low[index])
        expected = indexed_likelihood(jnp.asarray(symbols, jnp.float32), jnp.float32(0), jnp.int32(index))
        np.testing.assert_allclose(counts / counts.sum(), expected, atol=3e-7)


def test_indexing_costs_almost_nothing():
    random = np.random.default_rng(1)
    scale = np.exp(random.uniform(np.log(0.3), np.log(100), 20_000)).astype(np.float32)
    y = np.rint(random.normal(0, scale)).astype(np.float32)
    exact = likelihood_bits(gaussian_likelihood(y, np.float32(0), scale)[None])
    indexed = likelihood_bits(indexed_likelihood(y, np.float32(0), scale_index(scale))[None])
    assert abs(float(indexed[0] / exact[0]) - 1) < 5e-4
