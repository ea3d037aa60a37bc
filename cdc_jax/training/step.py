"""One training step over all devices: gradient, update, moving average.

The step is data-parallel. Each device processes its rows of the global batch, in `train.accumulate` micro-batches, one
after another. One all-reduce then averages gradients and metrics, and every device applies the same update.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, UInt8

from cdc_jax.errors import ConfigError
from cdc_jax.io.pixels import to_unit_range
from cdc_jax.models.params import Params, shapes
from cdc_jax.runtime.sharding import DATA, make_mesh, replicated, split_batch
from cdc_jax.training.config import model_config
from cdc_jax.training.imitation import Teacher
from cdc_jax.training.loss import beta_at, hyper_weight_at, loss_and_metrics
from cdc_jax.training.optimizer import ema_decay, learning_rate_schedule, make_optimizer, update_ema
from cdc_jax.training.randomness import StepRandomness, step_randomness
from cdc_jax.training.state import TrainState, is_trained

Metrics = dict[str, Float[Array, ""]]
Perceptual = Mapping[str, Array]


def new_state(config: ml_collections.ConfigDict, weights: Mapping[str, Array], mesh: Mesh | None = None) -> TrainState:
    """A state at step 0 with these weights and a fresh optimizer, replicated over the mesh (None: on one device)."""
    everywhere = replicated(mesh or make_mesh(jax.local_devices()[:1]))
    params = {name: jax.device_put(value, everywhere) for name, value in weights.items()}
    trained = _trained(config, params)
    ema = jax.tree.map(jnp.copy, trained) if config.ema.enabled else {}
    optimizer = jax.jit(_fresh_optimizer(config), out_shardings=everywhere)(trained)
    return TrainState(jax.device_put(jnp.int32(0), everywhere), params, ema, optimizer)


def abstract_state(config: ml_collections.ConfigDict) -> TrainState:
    """The shapes and dtypes of a state, as `jax.ShapeDtypeStruct`s; nothing is computed."""
    params = shapes(model_config(config))
    trained = _trained(config, params)
    optimizer = jax.eval_shape(_fresh_optimizer(config), trained)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    return TrainState(step, params, trained if config.ema.enabled else {}, optimizer)


def check_divisible(config: ml_collections.ConfigDict, mesh: Mesh, processes: int = 1) -> None:
    """Raises ConfigError if the batch cannot be split evenly over devices, processes and micro-batches."""
    parts = mesh.size * config.train.accumulate
    if config.data.batch_size % parts or config.data.batch_size % processes:
        raise ConfigError(
            f"data.batch_size is {config.data.batch_size}; it must be a multiple of {parts} "
            f"({mesh.size} devices × {config.train.accumulate} micro-batches of train.accumulate)."
        )


def jit_train_step(config: ml_collections.ConfigDict, mesh: Mesh) -> Callable[..., tuple[TrainState, Metrics]]:
    """`train_step`, jitted over the mesh. The state is replicated and donated; images are split over the devices.

    In distillation, it takes a `Teacher` as its fourth argument.
    """
    return _jit(config, mesh, functools.partial(train_step, config, mesh))


def jit_train_steps(config: ml_collections.ConfigDict, mesh: Mesh) -> Callable[..., tuple[TrainState, Metrics]]:
    """Consecutive steps in one program, jitted as `jit_train_step`.

    It takes a list of global batches, and returns every metric as an array with one value per step. A program's
    temporary memory is allocated once per call, which on CPUs takes a seventh of a step's time.
    """

    def train_steps(state, batches, *networks):
        def step(state, images):
            return train_step(config, mesh, state, images, *networks)

        return jax.lax.scan(step, state, jnp.stack(batches))

    return _jit(config, mesh, train_steps)


def _jit(config: ml_collections.ConfigDict, mesh: Mesh, function: Callable) -> Callable:
    everywhere = replicated(mesh)
    networks = (everywhere, everywhere) if config.distill.steps else (everywhere,)
    return jax.jit(
        function,
        in_shardings=(everywhere, split_batch(mesh), *networks),
        out_shardings=everywhere,
        donate_argnums=0,
    )


def train_step(
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    perceptual: Perceptual,
    teacher: Teacher | None = None,
) -> tuple[TrainState, Metrics]:
    """Computes the gradient, and updates the weights, their moving average and the optimizer.

    Args:
      config: the run's settings.
      mesh: the devices.
      state: the state before the step.
      images: the global batch of square crops.
      perceptual: LPIPS-VGG's weights; {} leaves LPIPS out of the loss.
      teacher: the teacher, in distillation.

    Returns:
      The state after the step, and the step's metrics: the loss terms averaged over the batch, the gradient's global
      norm, β_rate and the learning rate. If the gradient is not finite, only the state's step changes.
    """
    rate_weights = beta_at(config, state.step), hyper_weight_at(config, state.step)
    trained = _trained(config, state.params)
    frozen = {name: value for name, value in state.params.items() if name not in trained}
    dtype = next(iter(trained.values())).dtype
    randomness = step_randomness(config, state.step, images.shape[0], dtype)
    networks = perceptual, teacher
    gradients, metrics = _gradients(config, mesh, trained, frozen, images, randomness, rate_weights, networks)
    norm = optax.global_norm(gradients)
    params, ema, optimizer = _update(config, state, trained, gradients, norm)
    metrics |= {
        "gradient_norm": norm,
        "beta": rate_weights[0],
        "learning_rate": jnp.asarray(learning_rate_schedule(config)(state.step), jnp.float32),
    }
    return TrainState(state.step + 1, {**frozen, **params}, ema, optimizer), metrics


def _update(config, state: TrainState, trained: Params, gradients: Params, norm: Float[Array, ""]):
    """(weights, their moving average, optimizer state) after the step; unchanged if the gradient is not finite.

    The weights are concatenated to one vector, because updating each array separately would compile 20,000 operations.
    """
    weights, unravel = ravel_pytree(trained)
    average, gradient = ravel_pytree(state.ema)[0], ravel_pytree(gradients)[0]
    transformation = make_optimizer(config, trained)

    def change(weights, average, optimizer):
        updates, optimizer = transformation.update(gradient, optimizer, weights)
        weights = optax.apply_updates(weights, updates)
        if config.ema.enabled:
            average = update_ema(average, weights, ema_decay(config, state.step))
        return weights, average, optimizer

    def keep(*values):
        return values

    operands = weights, average, state.optimizer
    weights, average, optimizer = jax.lax.cond(jnp.isfinite(norm), change, keep, *operands)
    return unravel(weights), unravel(average) if config.ema.enabled else {}, optimizer


def _fresh_optimizer(config: ml_collections.ConfigDict):
    return lambda trained: make_optimizer(config, trained).init(ravel_pytree(trained)[0])


def _trained(config: ml_collections.ConfigDict, params: Params) -> Params:
    return {name: value for name, value in params.items() if is_trained(config, name)}


def _gradients(config, mesh: Mesh, trained: Params, frozen: Params, images, randomness, rate_weights, networks):
    """Gradients and metrics, averaged over the global batch."""

    def loss(trained, frozen, rate_weights, networks, images, randomness):
        weights = {**frozen, **trained}
        images = to_unit_range(images, randomness.noise.dtype)
        (beta, hyper_weight), (perceptual, teacher) = rate_weights, networks
        options = {"hyper_weight": hyper_weight, "teacher": teacher}
        return loss_and_metrics(config, weights, images, randomness, beta, perceptual, **options)

    def device_share(*arguments):
        *shared, images, randomness = arguments
        gradient = functools.partial(jax.grad(loss, has_aux=True), *shared)
        return _average(_accumulate(gradient, images, randomness, config.train.accumulate), mesh)

    whole, split = PartitionSpec(), PartitionSpec(DATA)
    return jax.shard_map(
        device_share,
        mesh=mesh,
        in_specs=(whole, whole, whole, whole, split, StepRandomness(split, split, split, whole, split, split)),
        out_specs=whole,
        check_vma=False,  # each device keeps its own gradient until the one all-reduce
    )(trained, frozen, rate_weights, networks, images, randomness)


def _accumulate(gradient: Callable, images, randomness: StepRandomness, count: int):
    """The mean of `gradient` over `count` micro-batches, computed one after another."""
    if count == 1:
        return gradient(images, randomness)
    rows = (images, randomness._replace(corner=None))
    rows = jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), rows)

    def part(images, rows):
        return gradient(images, rows._replace(corner=randomness.corner))

    def add(total, rows):
        return jax.tree.map(jnp.add, total, part(*rows)), None

    first = jax.tree.map(lambda x: x[0], rows)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(part, *first))
    total = jax.lax.scan(add, zeros, rows)[0]
    return jax.tree.map(lambda x: x / count, total)


def _average(share, mesh: Mesh):
    """The mean over the devices, computed on one vector because XLA merges at most 256 arrays into one all-reduce."""
    if mesh.size == 1:
        return share
    vector, unravel = ravel_pytree(share)
    return unravel(jax.lax.pmean(vector, DATA))
