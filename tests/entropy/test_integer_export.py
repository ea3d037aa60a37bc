import numpy as np
import pytest

from cdc_jax.entropy.integer_layer import MAX_WEIGHT
from cdc_jax.entropy.tables import draw_symbols, factorized_tables
from cdc_jax.errors import BundleError
from tests.entropy.cases import build_net, decode_in_python_integers, random_symbols


def test_export_uses_at_most_half_the_range(coding_weights):
    fine = build_net(coding_weights(6))
    assert [layer.output_bits for layer in fine.layers] == [16, 16, 16]
    prior, layers = coding_weights(6, gain=200.0)
    coarse = build_net((prior, layers))
    bits = [coarse.layers[0].input_bits, *(layer.output_bits for layer in coarse.layers)]
    assert bits[0] > bits[1] > bits[2] > bits[3] >= 0
    drawn = draw_symbols(factorized_tables(prior), 256).reshape(16, 16, 6)
    assert coarse.count_saturations(drawn) == 0
    largest = np.abs(coarse.decode_integers(drawn)).max()
    assert 2**21 < largest <= 2**22
    assert coarse.count_saturations(np.sign(drawn) * np.int32(127)) > 0
    z = drawn[:2, :2]
    np.testing.assert_array_equal(coarse.decode_integers(z), decode_in_python_integers(coarse, z))


def test_export_is_deterministic_and_finest(coding_weights):
    first, second = build_net(coding_weights(4)), build_net(coding_weights(4))
    for a, b in zip(first.layers, second.layers, strict=True):
        assert a.kernel.tobytes() == b.kernel.tobytes() and a.bias.tobytes() == b.bias.tobytes()
        assert 2**16 <= np.abs(a.kernel).max() <= MAX_WEIGHT


def test_a_large_bias_makes_weights_coarser(coding_weights):
    prior, layers = coding_weights(3)
    layers[1] = (layers[1][0], np.full(3, 2.0**17, np.float32))
    net = build_net((prior, layers))
    assert all(layer.largest_sum() < 2**53 for layer in net.layers)
    z = random_symbols((2, 2, 3), 3)
    np.testing.assert_array_equal(net.decode_integers(z), decode_in_python_integers(net, z))


def test_zero_weights(coding_weights):
    prior, layers = coding_weights(2)
    net = build_net((prior, [(np.zeros_like(kernel), np.zeros_like(bias)) for kernel, bias in layers]))
    mean, scale_index = net.decode(random_symbols((2, 2, 2), 9))
    assert not mean.any() and not scale_index.any()


@pytest.mark.parametrize(
    "damage", ["nan", "inf", "large", "large bias", "double", "shape", "channels", "bias", "count"]
)
def test_bad_float_weights(coding_weights, damage):
    prior, layers = coding_weights(3)
    kernel, bias = layers[1]
    if damage in ("nan", "inf", "large"):
        kernel = kernel.copy()
        kernel[0, 0, 0, 0] = {"nan": np.nan, "inf": np.inf, "large": 1e6}[damage]
    changed = {
        "double": (kernel.astype(np.float64), bias),
        "shape": (kernel[:3, :3], bias),
        "channels": (kernel[..., :2], bias),
        "bias": (kernel, bias[:2]),
        "large bias": (kernel, np.full_like(bias, 1e30)),
    }
    layers[1] = changed.get(damage, (kernel, bias))
    with pytest.raises(BundleError, match="hyper decoder"):
        build_net((prior, layers[:2] if damage == "count" else layers))
