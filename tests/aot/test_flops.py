"""Counted FLOPs, compared with numbers computed by hand, a compiler's count, and the model's known cost."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from cdc_jax.aot.flops import product_flops
from cdc_jax.models import convolution
from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import merge, shapes
from cdc_jax.runtime.sharding import make_mesh


def counted(function, *sizes, platform="cpu"):
    arguments = [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]
    return product_flops(jax.make_jaxpr(function)(*arguments), platform)


def convolve(x, kernel, **options):
    return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


def test_products():
    assert counted(lambda a, b: a @ b, (5, 7), (7, 3)) == 2 * 5 * 7 * 3
    assert counted(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (2, 5, 7), (2, 3, 7)) == 2 * 2 * 5 * 7 * 3


def test_convolutions_agree_with_the_compiler():
    sizes = (2, 12, 12, 6), (3, 3, 6, 10)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in sizes]

    def valid(x, kernel):
        return convolve(x, kernel, window_strides=(1, 1), padding="VALID")

    theirs = jax.jit(valid).lower(*arguments).compile().cost_analysis()["flops"]
    assert counted(valid, *sizes) == 2 * 2 * 10 * 10 * 10 * 9 * 6 == pytest.approx(theirs, rel=0.01)


def test_either_gradient_of_a_strided_convolution_costs_what_it_does():
    def down(x, kernel):
        return convolve(x, kernel, window_strides=(2, 2), padding=((1, 1), (1, 1)))

    sizes = (1, 16, 16, 4), (4, 4, 4, 8)
    whole = counted(jax.value_and_grad(lambda x, kernel: down(x, kernel).sum(), argnums=(0, 1)), *sizes)
    assert whole == 3 * counted(down, *sizes)


def test_loops_and_branches():
    def body(carry, _):
        return carry @ carry, None

    assert counted(lambda x: jax.lax.scan(body, x, None, length=9)[0], (4, 4)) == 9 * 2 * 4**3
    assert counted(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x, lambda x: x @ x @ x, x), (4, 4)) == 2 * 2 * 4**3
    assert counted(jax.jit(lambda x: x @ x), (4, 4)) == 2 * 4**3


def test_a_platform_dependent_branch_counts_for_its_platform():
    def function(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x, cuda=lambda x: x, default=lambda x: x @ x @ x)

    flops = {platform: counted(function, (4, 4), platform=platform) for platform in ("cpu", "cuda", "tpu")}
    assert flops == {"cpu": 2 * 4**3, "cuda": 0, "tpu": 2 * 2 * 4**3}


def test_gradients_that_nothing_needs_do_not_count():
    """Of an input only, through a rule that computes the kernel's as well."""
    sizes, rule = ((1, 16, 16, 4), (3, 3, 4, 8)), ((1, 1), (1, 1))

    def ours(x, kernel):
        return convolution.convolve(x, kernel, rule, 1, None).sum()

    def plain(x, kernel):
        return convolve(x, kernel, window_strides=(1, 1), padding=rule).sum()

    for platform in ("cpu", "tpu"):
        of_input = counted(jax.grad(ours), *sizes, platform=platform)
        assert of_input == counted(jax.grad(plain), *sizes, platform=platform) > 0
        assert counted(jax.grad(ours, argnums=(0, 1)), *sizes, platform=platform) > of_input


def test_passes_of_float32_products_on_a_tpu():
    """1, 3 or 6 for each precision; the higher of the operands' precisions decides; bfloat16 needs one."""

    def passes(function, dtype=jnp.float32):
        arguments = [jax.ShapeDtypeStruct((4, 4), dtype)] * 2
        jaxpr = jax.make_jaxpr(function)(*arguments)
        return product_flops(jaxpr, "tpu", passes=True) / product_flops(jaxpr, "tpu")

    for precision, count in {None: 1, "default": 1, "high": 3, "highest": 6, ("default", "highest"): 6}.items():
        assert passes(functools.partial(jnp.dot, precision=precision)) == count
        assert passes(functools.partial(jnp.dot, precision=precision), jnp.bfloat16) == 1
    with jax.default_matmul_precision("highest"):
        assert passes(jnp.dot) == 6

    def convolved(x, kernel):
        x, kernel = x.reshape(1, 4, 4, 1), kernel.reshape(2, 2, 1, 4)
        return convolve(x, kernel, window_strides=(1, 1), padding="SAME", precision="highest")

    assert passes(convolved) == 6


def test_loops_count_once_on_request():
    def looped(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x @ x, None, length=9)[0]

    jaxpr = jax.make_jaxpr(looped)(jax.ShapeDtypeStruct((4, 4), jnp.float32))
    assert product_flops(jaxpr, "cpu") == 5 * product_flops(jaxpr, "cpu", loops=False) == 10 * 2 * 4**3


def test_unused_equations_do_not_count():
    assert counted(lambda x, y: jax.vjp(jnp.dot, x, y)[1](x)[0], (4, 4), (4, 4)) == 2 * 4**3


def test_every_device_of_a_shard_map_counts():
    mesh = make_mesh(jax.devices()[:1])
    on_eight = AbstractMesh((8,), mesh.axis_names)
    split = PartitionSpec(mesh.axis_names[0])
    whole = jax.shard_map(lambda x, y: x @ y, mesh=on_eight, in_specs=(split, PartitionSpec()), out_specs=split)
    assert counted(whole, (16, 4), (4, 5)) == 2 * 16 * 4 * 5


def test_the_model_costs_what_its_authors_program_does():
    """984,000 multiply-accumulates per pixel and step at d = 64; our attention merges some of its products."""
    config, side = ModelConfig(width=64), 256
    context = [(1, side >> level, side >> level, count) for level, count in enumerate(config.context_channels)]

    def denoise(params, x, time, *context):
        return merge(config, params).unet(x, time, Context(context, None))

    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, side, side, 3), (1,), *context)]
    flops = product_flops(jax.make_jaxpr(denoise)(shapes(config), *arguments), "tpu")
    assert 0.95 * 984e3 < flops / (2 * side**2) < 984e3
