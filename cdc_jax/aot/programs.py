"""The programs to compile: the training step and the batched decoder.

They are the functions that training and decoding call, with abstract arguments, so no weights are created.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from cdc_jax.codec.decoding import synthesize
from cdc_jax.models.config import LATENT_STRIDE
from cdc_jax.models.params import shapes
from cdc_jax.runtime.sharding import replicated, split_batch
from cdc_jax.training.config import model_config
from cdc_jax.training.imitation import make_teacher
from cdc_jax.training.loss import perceptual_weights
from cdc_jax.training.step import abstract_state, check_divisible, jit_train_step


class Program(NamedTuple):
    """A jitted function, and the abstract arguments to trace it with."""

    function: Callable
    arguments: tuple


def train_program(config: ml_collections.ConfigDict, mesh: Mesh, batch_per_chip: int) -> Program:
    """One training step; in distillation, of the last stage. The state is replicated and donated, the batch split."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.batch_size = batch_per_chip * mesh.size
    check_divisible(config, mesh)
    crop = config.data.crop
    images = jax.ShapeDtypeStruct((config.data.batch_size, crop, crop, 3), jnp.uint8)
    perceptual = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), perceptual_weights(config))
    arguments = abstract_state(config), images, perceptual
    if config.distill.steps:
        arguments = *arguments, make_teacher(config, shapes(model_config(config)))
    return Program(jit_train_step(config, mesh), arguments)


def decode_program(config: ml_collections.ConfigDict, mesh: Mesh, batch_per_chip: int) -> Program:
    """Decoding of ŷ to images of the crop's size, in the model's default number of steps; the batch is split."""
    model = model_config(config)
    everywhere, split = replicated(mesh), split_batch(mesh)

    def decode(params, y_hat, seed, gamma, eta, quality=None):
        return synthesize(model, model.decode_steps, False, params, y_hat, seed, gamma, eta, quality).images

    cells = config.data.crop // LATENT_STRIDE
    y_hat = jax.ShapeDtypeStruct((batch_per_chip * mesh.size, cells, cells, model.latent_channels), jnp.float32)
    scalars = [jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.uint32, jnp.float32, jnp.float32)]
    qualities = [jax.ShapeDtypeStruct(y_hat.shape[:1], jnp.float32)] if model.variable_rate else []
    shardings = everywhere, split, *[everywhere for _ in scalars], *[split for _ in qualities]
    function = jax.jit(decode, in_shardings=shardings, out_shardings=split)
    return Program(function, (shapes(model), y_hat, *scalars, *qualities))


PROGRAMS = {"train_step": train_program, "decode": decode_program}
