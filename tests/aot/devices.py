"""A small program like the training step, which compiles fast: a data-parallel gradient of one layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh

from cdc_jax.aot.programs import Program
from cdc_jax.runtime.sharding import make_mesh, replicated, split_batch


def data_parallel_step(*, devices: int = 1, features: int = 16) -> Program:
    """The program on virtual devices of this process; skips the test if there are too few."""
    if len(jax.devices()) < devices:
        pytest.skip(f"needs {devices} devices: XLA_FLAGS=--xla_force_host_platform_device_count={devices}")
    return small_program(make_mesh(jax.devices()[:devices]), 1, features=features)


def small_program(mesh: Mesh, batch_per_chip: int, *, features: int = 128) -> Program:
    """params → params − gradient of a mean square; params are donated."""

    def step(params, x):
        def loss(params):
            return jnp.mean((x @ params["w"] + params["b"]) ** 2)

        return jax.tree.map(lambda p, g: p - g, params, jax.grad(loss)(params))

    everywhere, split = replicated(mesh), split_batch(mesh)
    function = jax.jit(step, in_shardings=(everywhere, split), out_shardings=everywhere, donate_argnums=0)
    params = {"w": jnp.zeros((features, features)), "b": jnp.zeros(features)}
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    return Program(function, (params, jax.ShapeDtypeStruct((batch_per_chip * mesh.size, features), jnp.float32)))
