"""Convolutions and their gradients, compared with XLA's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.models.convolution import convolve, transposed, transposed_phases

SAME_1, SAME_3, SAME_5, SAME_7 = (((k // 2, k // 2),) * 2 for k in (1, 3, 5, 7))
CASES = {  # kernel's shape, padding, stride
    "1x1": ((1, 1, 3, 5), SAME_1, 1),
    "2x2 of one phase": ((2, 2, 4, 6), ((1, 0), (1, 1)), 1),
    "3x3": ((3, 3, 4, 5), SAME_3, 1),
    "7x7 from few channels": ((7, 7, 3, 18), SAME_7, 1),
    "7x7 to few channels": ((7, 7, 18, 3), SAME_7, 1),
    "halving 3x3": ((3, 3, 4, 5), SAME_3, 2),
    "halving 5x5": ((5, 5, 4, 3), SAME_5, 2),
    "halving 3x3 with another padding": ((3, 3, 4, 3), ((0, 1), (0, 1)), 2),
    "5x5 of stride 4": ((5, 5, 4, 3), ((0, 1), (2, 2)), 4),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    shape, padding, stride = CASES[case]
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 12, 16, shape[2])), jnp.float32)
    kernel = jnp.asarray(random.normal(size=shape), jnp.float32)

    def reference(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=layout, precision="highest"
        )

    def ours(x, kernel):
        return convolve(x, kernel, padding, stride, "highest")

    @jax.jit
    def both(x, kernel):
        results = []
        for function in (ours, reference):
            value, back = jax.vjp(function, x, kernel)
            results.append((value, *back(jnp.sin(3 * value))))
        return results

    for found, expected in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("padding", [SAME_3, ((0, 2), (2, 1))])
def test_a_kernel_gradient_in_parts(padding):
    """A map of more positions than are multiplied at once; the parts have 12 of its 36 rows, in each of two images."""
    random = np.random.default_rng(3)
    x = jnp.asarray(random.normal(size=(2, 36, 80, 3)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(3, 3, 3, 4)), jnp.float32)
    value, back = jax.vjp(lambda kernel: convolve(x, kernel, padding, 1, "highest"), kernel)
    gradient = jnp.sin(3 * value)
    patches = np.pad(np.float64(x), ((0, 0), *padding, (0, 0)))
    height, width = gradient.shape[1:3]
    expected = [
        [np.einsum("bhwi,bhwo->io", patches[:, r : r + height, c : c + width], gradient) for c in range(3)]
        for r in range(3)
    ]
    np.testing.assert_allclose(back(gradient)[0], expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_bfloat16_products_are_summed_in_float32():
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(1, 8, 8, 16)), jnp.bfloat16)
    kernel = jnp.asarray(random.normal(size=(3, 3, 16, 4)), jnp.bfloat16)
    found = convolve(x, kernel, SAME_3, 1, "highest")
    expected = convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), SAME_3, 1, "highest")
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    gradients = jax.grad(lambda x, kernel: jnp.sum(convolve(x, kernel, SAME_3, 1, "highest")), (0, 1))(x, kernel)
    assert [g.dtype for g in gradients] == [jnp.bfloat16] * 2


def test_other_platforms_keep_their_own_gradients():
    """Lowered for a TPU, but not for a CPU, the gradient of a halving convolution is XLA's, with a dilated input."""
    x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4, 4))

    def gradient(x, kernel):
        return jax.grad(lambda x, kernel: jnp.sum(convolve(x, kernel, SAME_3, 2, "highest") ** 2), (0, 1))(x, kernel)

    traced = jax.jit(gradient).trace(x, kernel)
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu")}
    dilated = {platform: "lhs_dilate = [2, 2]" in text for platform, text in texts.items()}
    assert dilated == {"cpu": False, "tpu": True}


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_transposed_convolution_by_phases_is_that_over_zeros(kernel, dtype):
    """Values and gradients of both forms agree."""
    random = np.random.default_rng(2)
    x = jnp.asarray(random.normal(size=(2, 5, 7, 3)), dtype)
    weights = jnp.asarray(random.normal(size=(kernel, kernel, 3, 4)), dtype)

    def by_definition(x, weights):
        return convolve(x, weights, ((2, 2 + kernel % 2),) * 2, 1, "highest", 2)

    def by_phases(x, weights):
        return transposed(x, weights, transposed_phases(weights), "highest")

    cotangent = jnp.asarray(random.normal(size=(2, 10, 14, 4)), jnp.float32)
    results = []
    for function in (by_phases, by_definition):
        value, back = jax.vjp(function, x, weights)
        gradients = back(cotangent)
        assert value.dtype == jnp.float32 and value.shape == (2, 10, 14, 4)
        assert [gradient.dtype for gradient in gradients] == [x.dtype] * 2
        results.append((value, *gradients))
    for found, expected in zip(*results, strict=True):
        tolerance = 2e-6 if dtype == "float32" else 2e-2
        found, expected = (np.asarray(v, np.float32) for v in (found, expected))
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def test_other_platforms_transpose_over_zeros():
    """Lowered for a TPU, a transposed convolution and its gradient are one convolution each, without phases."""
    x, kernel = jnp.zeros((1, 4, 4, 8)), jnp.zeros((4, 4, 8, 4))

    def both(x, kernel):
        def total(x, kernel):
            return jnp.sum(transposed(x, kernel, transposed_phases(kernel), "highest") ** 2)

        return jax.value_and_grad(total, (0, 1))(x, kernel)

    traced = jax.jit(both).trace(x, kernel)
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu")}
    assert texts["tpu"].count("stablehlo.convolution(") == 3 and "lhs_dilate = [2, 2]" in texts["tpu"]
    assert texts["cpu"].count("stablehlo.convolution(") > 3 and "lhs_dilate = [2, 2]" not in texts["cpu"]
