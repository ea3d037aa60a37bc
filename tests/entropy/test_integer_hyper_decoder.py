from dataclasses import replace

import numpy as np
import pytest

from cdc_jax.entropy.integer_hyper_decoder import IntegerHyperDecoder
from cdc_jax.entropy.integer_layer import MAX_ACTIVATION, MAX_WEIGHT, MIN_ACTIVATION, IntegerLayer
from cdc_jax.entropy.tables import draw_symbols, factorized_tables, scale_table
from cdc_jax.errors import BundleError
from tests.entropy.cases import build_net, decode_in_python_integers, random_symbols
from tests.helpers.summation import FloatNetwork, FloatNetworkReversed, ShuffledSums, with_sums_of


@pytest.fixture(scope="module")
def net(small_model) -> IntegerHyperDecoder:
    return small_model.hyper_decoder


@pytest.mark.parametrize("largest", [2, 127, 2**23])
def test_equals_python_integers(net, largest):
    z = random_symbols((3, 2, 6), largest)
    np.testing.assert_array_equal(net.decode_integers(z), decode_in_python_integers(net, z))


def _with_extreme_weights(net: IntegerHyperDecoder, seed: int) -> IntegerHyperDecoder:
    """Every weight is ±131071, and the shifts make every layer saturate."""
    rng = np.random.default_rng(seed)
    layers = []
    for layer in net.layers:
        kernel = rng.choice(np.array([-MAX_WEIGHT, MAX_WEIGHT], np.int32), layer.kernel.shape)
        layers.append(replace(layer, kernel=kernel, weight_bits=18, input_bits=16, output_bits=16))
    return replace(net, layers=tuple(layers))


def test_equals_python_integers_in_saturation(net):
    extreme = _with_extreme_weights(net, 1)
    z = np.where(random_symbols((2, 3, 6), 1) > 0, 127, -127).astype(np.int32)
    expected = decode_in_python_integers(extreme, z)
    assert np.any(expected == MAX_ACTIVATION) and np.any(expected == MIN_ACTIVATION)
    np.testing.assert_array_equal(extreme.decode_integers(z), expected)
    assert extreme.count_saturations(z) > 0


def test_the_order_of_summation_does_not_matter(net):
    for base in (net, _with_extreme_weights(net, 2)):
        shuffled = with_sums_of(base, ShuffledSums)
        for seed, largest in enumerate((1, 10, 127, 2**23)):
            z = random_symbols((5, 4, 6), largest, seed)
            for expected, found in zip(base.decode(z), shuffled.decode(z), strict=True):
                assert expected.tobytes() == found.tobytes()


def test_in_float32_the_order_would_matter(coding_weights):
    """Control: with float32 sums the same network gives other means, and sometimes other scale indices."""
    base = build_net(coding_weights(24))
    z = random_symbols((24, 24, 24), 4)
    forward, backward = (with_sums_of(base, order).decode(z) for order in (FloatNetwork, FloatNetworkReversed))
    assert np.mean(forward[0] != backward[0]) > 0.1
    assert np.any(forward[1] != backward[1])


def test_tiles_have_no_seams(coding_weights):
    net = build_net(coding_weights(2))
    z = random_symbols((37, 20, 2), 5)
    whole = net.decode_integers(z[:9, :9])
    assert whole.shape == (36, 36, 4)
    [tile] = net._tiles(z, 64)
    untiled = tile.output
    np.testing.assert_array_equal(net.decode_integers(z), untiled)
    np.testing.assert_array_equal(net.decode(z)[0], untiled[..., :2] * 2.0 ** -net.layers[2].output_bits)
    # Away from the border, a crop gives the values of the whole image.
    np.testing.assert_array_equal(net.decode_integers(z[2:14, 3:15])[8:40, 8:40], untiled[16:48, 20:52])


def test_agrees_with_the_float_network(coding_weights):
    jax = pytest.importorskip("jax")
    prior, layers = coding_weights(16)
    net = build_net((prior, layers))
    z = draw_symbols(factorized_tables(prior), 48).reshape(6, 8, 16)
    x = (z + prior["medians"])[None].astype(np.float32)
    for i, (kernel, bias) in enumerate(layers):
        dilation, padding = ((2, 2), ((2, 3), (2, 3))) if i < 2 else ((1, 1), ((1, 1), (1, 1)))
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, lhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest",
        ) + bias  # fmt: skip
        x = jax.nn.leaky_relu(x, 0.2) if i < 2 else x
    mean, scale_index = net.decode(z)
    _check_against_float(np.asarray(x[0, ..., :16]), np.asarray(x[0, ..., 16:]), mean, scale_index)


def _check_against_float(float_mean, float_scale, mean, scale_index):
    assert mean.dtype == np.float32 and scale_index.dtype == np.uint8
    assert np.sqrt(np.mean((mean - float_mean) ** 2)) < 1e-4 * max(1, float_mean.std())
    distance = np.abs(np.log(np.clip(float_scale, 0.1, 256)[..., None]) - np.log(scale_table()))
    nearest = distance.argmin(axis=-1)
    assert np.mean(nearest != scale_index) < 0.005
    assert np.max(np.abs(nearest - scale_index.astype(int))) <= 1


def test_agrees_with_the_original_program(golden_weights):
    prior, layers, arrays = golden_weights
    net = build_net((prior, layers))
    for image in range(2):
        z = np.rint(arrays["q_hyper_latent"][image].transpose(1, 2, 0) - prior["medians"]).astype(np.int32)
        mean, scale_index = net.decode(z)
        float_mean, float_scale = (arrays[name][image].transpose(1, 2, 0) for name in ("mean", "scale"))
        _check_against_float(float_mean, float_scale, mean, scale_index)


def test_scale_thresholds(net):
    scales = scale_table()
    unit = 2.0 ** net.layers[2].output_bits
    at = np.array([-5.0, 0.0, 0.1, 0.10155, 0.1016, 1.0, 255.0, 1e5]) * unit
    index = np.searchsorted(net.thresholds, at.astype(np.int64), side="right")
    assert index[:5].tolist() == [0, 0, 0, 0, 1] and index[-2:].tolist() == [255, 255]
    assert abs(np.log(scales[index[5]])) <= np.log(scales[1] / scales[0]) / 2


def test_means_are_exact_float32(net):
    z = random_symbols((4, 4, 6), 127)
    integers = net.decode_integers(z)[..., :6]
    mean, _ = net.decode(z)
    np.testing.assert_array_equal(mean.astype(np.float64) * 2.0 ** net.layers[2].output_bits, integers)


def test_symbols_are_clipped_before_the_first_layer(net):
    z = random_symbols((2, 2, 6), 300)
    assert np.any(np.abs(z) > 127)
    np.testing.assert_array_equal(net.decode_integers(z), net.decode_integers(np.clip(z, -127, 127)))
    assert net.count_saturations(z) >= np.count_nonzero(np.abs(z) > 127)
    assert net.count_saturations(np.zeros_like(z)) == 0


def test_medians_shift_the_input(coding_weights):
    prior, layers = coding_weights(3)
    prior["medians"] = np.array([1.0, -2.0, 3.0], np.float32)
    net = build_net((prior, layers))
    centered = replace(net, medians=np.zeros(3, np.int32))
    z = random_symbols((3, 3, 3), 5)
    np.testing.assert_array_equal(net.decode_integers(z), centered.decode_integers(z + np.array([1, -2, 3], np.int32)))


def _bad_layer(net, **changes):
    layers = list(net.layers)
    layers[1] = replace(layers[1], **changes)
    return replace(net, layers=tuple(layers))


@pytest.mark.parametrize(
    "change",
    [
        lambda net: _bad_layer(net, kernel=net.layers[1].kernel.astype(np.int64)),
        lambda net: _bad_layer(net, kernel=net.layers[1].kernel[:3]),
        lambda net: _bad_layer(net, kernel=net.layers[1].kernel[:, :, :0]),
        lambda net: _bad_layer(net, kernel=net.layers[1].kernel[:, :, :5]),
        lambda net: _bad_layer(net, kernel=np.full_like(net.layers[1].kernel, MAX_WEIGHT + 1)),
        lambda net: _bad_layer(net, kernel=np.full_like(net.layers[1].kernel, -(2**31))),
        lambda net: _bad_layer(net, bias=net.layers[1].bias[:3]),
        lambda net: _bad_layer(net, bias=net.layers[1].bias.astype(np.int32)),
        lambda net: _bad_layer(net, bias=np.full_like(net.layers[1].bias, 2**53)),
        lambda net: _bad_layer(net, bias=np.full_like(net.layers[1].bias, -(2**63))),
        lambda net: _bad_layer(net, weight_bits=0),
        lambda net: _bad_layer(net, weight_bits=31),
        lambda net: _bad_layer(net, input_bits=17),
        lambda net: _bad_layer(net, output_bits=-1),
        lambda net: _bad_layer(net, output_bits=15),
        lambda net: _bad_layer(net, weight_bits=1, input_bits=0, output_bits=1),
        lambda net: replace(net, layers=(net.layers[2], net.layers[1], net.layers[0])),
        lambda net: replace(net, medians=net.medians.astype(np.int64)),
        lambda net: replace(net, medians=net.medians[:4]),
        lambda net: replace(net, thresholds=net.thresholds[:4]),
        lambda net: replace(net, thresholds=net.thresholds[::-1]),
        lambda net: replace(net, thresholds=net.thresholds.astype(np.float64)),
    ],
)
def test_an_inconsistent_network_is_refused(net, change):
    with pytest.raises(BundleError, match="integer hyper decoder"):
        change(net)


def test_the_bound_is_tight(net):
    layer = net.layers[1]
    room = 2**53 - layer.largest_sum()
    # Only one channel's bias determines the bound: the one that would lower it if the bias were 0.
    unbiased = [replace(layer, bias=np.where(np.arange(6) == c, 0, layer.bias)).largest_sum() for c in range(6)]
    heaviest = int(np.argmin(unbiased))
    sign = 1 if layer.bias[heaviest] > 0 else -1
    bias = layer.bias.copy()
    bias[heaviest] += sign * (room - 1)
    assert replace(layer, bias=bias).largest_sum() == 2**53 - 1
    bias[heaviest] += sign
    with pytest.raises(BundleError, match="2\\^53"):
        replace(layer, bias=bias)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 2, 5), np.int32), ((2, 2, 6), np.int64), ((0, 2, 6), np.int32)])
def test_wrong_symbols(net, shape, dtype):
    with pytest.raises(ValueError, match="int32"):
        net.decode(np.zeros(shape, dtype))


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_just_below_the_limit_are_exact(sign):
    """With 256 channels, the largest weights and inputs, and the largest bias that the bound allows."""
    kernel = np.full((3, 3, 256, 1), sign * MAX_WEIGHT, np.int32)
    kernel[1, 1, ::7] -= sign * 12345
    layer = IntegerLayer(kernel, np.zeros(1, np.int64), 1, False, 30, 16, 16)
    room = 2**53 - 1 - layer.largest_sum()
    assert room < 2**53 - 2**51
    layer = replace(layer, bias=np.array([-sign * room]))
    x = np.full((3, 3, 256), float(MIN_ACTIVATION))
    [(_, sums)] = layer.sums(x, np.matmul)
    exact = int(np.sum(kernel.astype(object))) * MIN_ACTIVATION
    assert int(sums[0, 0, 0]) == exact
    finished, _ = replace(layer, weight_bits=30, output_bits=16).finish(sums)
    assert int(finished[0, 0, 0]) == (exact - sign * room + 2**29) >> 30
