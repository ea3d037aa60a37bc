"""The optimized U-Net compared with the plain one: same values, same gradients, nothing computed twice."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import merge, shapes
from cdc_jax.models.plain_unet import plain_unet
from tests.helpers.golden import relative_error

SIDE = 64


@pytest.fixture(scope="module")
def case():
    """(config, weights with random gains and biases, noisy image, times, context maps)."""
    config = ModelConfig(width=8)
    random = np.random.default_rng(0)
    weights = initial_weights(config, 0)
    for name, value in weights.items():
        if name.startswith("unet.") and ".norm." in name or name.startswith("unet.final_norm"):
            weights[name] = value + 0.3 * random.normal(size=value.shape).astype(np.float32)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    context = tuple(draw(2, SIDE >> i, SIDE >> i, c) for i, c in enumerate(config.context_channels))
    return config, weights, draw(2, SIDE, SIDE, 3), jnp.asarray([0.1, 0.9], jnp.float32), Context(context, None)


@pytest.mark.slow
def test_values_and_every_gradient(case):
    config, weights, x, time, context = case
    wanted = jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)

    def gradients(unet):
        def loss(weights, context):
            output = unet(weights, context)
            return jnp.mean((output - wanted) ** 2), output

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    plain = gradients(lambda weights, context: plain_unet(config, weights, x, time, context))
    quick = gradients(lambda weights, context: merge(config, weights).unet(x, time, context))
    (_, expected_output), (expected, expected_context) = plain(weights, context)
    (_, output), (found, found_context) = quick(weights, context)
    assert relative_error(output, expected_output) < 1e-5
    largest = max(float(jnp.abs(v).max()) for v in expected.values())
    for name, gradient in expected.items():
        if name.startswith("unet."):
            np.testing.assert_allclose(
                found[name], gradient, rtol=0, atol=1e-4 * float(jnp.abs(gradient).max()) + 1e-7 * largest, err_msg=name
            )
    for a, b in zip(found_context.maps, expected_context.maps, strict=True):
        assert relative_error(a, b) < 1e-4


@pytest.mark.slow
def test_gradients_in_float64_and_rematerialized(case):
    """In float64 no value changes sign before a ReLU by rounding, so both programs agree to the last digits."""
    config, *inputs = case
    with jax.enable_x64(True):
        weights, x, time, context = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), tuple(inputs))
        wanted = jnp.sin(jnp.arange(x.size, dtype=jnp.float64)).reshape(x.shape)

        def ours(rematerialize):
            def unet(weights):
                model = merge(config, weights).unet
                return model.prepare(context)(x, model.embed(time), rematerialize=rematerialize)

            return unet

        def gradients(unet):
            return jax.jit(jax.grad(lambda weights: jnp.mean((unet(weights) - wanted) ** 2)))(weights)

        expected = gradients(lambda weights: plain_unet(config, weights, x, time, context))
        for found in (gradients(ours(False)), gradients(ours(True))):
            for name, gradient in expected.items():
                if name.startswith("unet."):
                    assert relative_error(found[name], gradient) < 1e-9, name


def test_steps_of_a_prepared_unet(case):
    config, weights, x, time, context = case

    @jax.jit
    def prepare(weights):
        unet = merge(config, weights).unet
        return unet.prepare(context), unet.embed(time)

    step = jax.jit(lambda ready, features: ready(x, features))
    plain = jax.jit(lambda weights, time: plain_unet(config, weights, x, time, context))
    ready, features = prepare(weights)
    for k in (0, 1):
        expected = plain(weights, jnp.full((2,), time[k]))
        assert relative_error(step(ready, tuple(f[k : k + 1] for f in features)), expected) < 1e-5


def test_the_loop_over_steps_has_nothing_of_the_context_and_no_transposes():
    from cdc_jax.codec.decoding import synthesize

    config = ModelConfig(width=4)
    cells = jnp.zeros((1, 4, 4, config.latent_channels))
    arguments = (shapes(config), cells, jnp.uint32(0), jnp.float32(0.8), jnp.float32(0))
    program = jax.make_jaxpr(synthesize, static_argnums=(0, 1, 2))(config, 3, False, *arguments)
    (loop,) = (e for e in equations(program.jaxpr) if e.primitive.name == "scan" and e.params["length"] == 3)
    inside = list(equations(loop.params["jaxpr"].jaxpr))
    kernels = [e.invars[1].aval.shape for e in inside if e.primitive.name == "conv_general_dilated"]
    assert sorted(shape for shape in kernels if shape[0] == 7) == [(7, 7, 3, 4), (7, 7, 4, 3)]
    maps = [e for e in inside if e.primitive.name == "transpose" and e.invars[0].aval.ndim == 4]
    assert not maps

    quickly = {"xla_backend_optimization_level": 0}  # affects machine code only, not the optimized HLO
    text = synthesize.lower(config, 3, False, *arguments).compile(compiler_options=quickly).as_text()
    transposed = re.findall(r"= f32\[([\d,]+)\]\S* transpose\(.*/while/body/", text)
    channels = {4 * multiple for multiple in range(1, 7)}
    assert "/while/body/" in text
    assert set(transposed) <= {f"1,{c},{c}" for c in channels}, "the attentions' matrices at most, and no maps"


def equations(jaxpr):
    """All equations of a program and its subprograms."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)
