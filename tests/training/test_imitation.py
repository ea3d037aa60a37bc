"""The loss of distillation against the project's sampler and central differences, in float64."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.diffusion.process import NoiseLevel, one_step_image
from cdc_jax.diffusion.sampler import SamplingGrid, ddim_sample, ddim_step, sampling_grid
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.diffusion.stages import teacher_steps_of
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import merge, shapes
from cdc_jax.training.config import model_config
from cdc_jax.training.imitation import imitation_loss, make_teacher
from cdc_jax.training.loss import loss_and_metrics
from cdc_jax.training.randomness import step_randomness
from cdc_jax.training.region import Region
from tests.helpers.compact import compact_training_config
from tests.helpers.training import tiny_config

GAMMA = 0.7
SIDE = 64


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def distilling(steps=3, **changes):
    """To 3 steps, with a network of width 4 and an image for each of the student's steps."""
    settings = {"model.width": 4, "data.crop": SIDE, "loss.unet_crop": 0, "loss.max_noise_fraction": 0.0}
    settings |= {"distill.steps": steps, "model.decode_steps": steps, "model.decode_gamma": GAMMA}
    settings |= {"data.batch_size": steps, "train.unet_precision": "highest"}
    return tiny_config(**settings | changes)


def randomness_of(config, dtype=jnp.float64):
    """The random numbers of a batch that has each of the student's steps once, the noisiest first."""
    count, last = config.distill.steps, model_config(config).num_timesteps - 1
    timesteps = jnp.asarray(np.linspace(last, 0, count), jnp.int32)
    return step_randomness(config, jnp.int32(0), count, dtype)._replace(timesteps=timesteps)


class ToyUNet:
    """Three numbers in place of a U-Net's weights, an image for context maps. Its estimates are partly clipped."""

    def __init__(self, numbers):
        self.numbers = numbers

    def embed(self, time, quality=None):
        return jnp.cos(7 * time)[:, None, None, None]

    def prepare(self, context):
        def predict(x, embedded, *, rematerialize):
            a, b, c = self.numbers
            return jnp.tanh(a * x + embedded) + b * x / (1 + x**2) + c * context

        return predict


STUDENT, TEACHER = (0.5, 0.1, 0.6), (0.7, 0.2, -0.4)


def toy_loss(config, student, image, context, randomness):
    model = types.SimpleNamespace(config=model_config(config), unet=ToyUNet(student))
    importance = jnp.arange(1.0, 1 + len(image))
    networks = model, ToyUNet(TEACHER), make_teacher(config, {}).steps
    return imitation_loss(config, *networks, Region(image, context, randomness, importance))


def by_hand(config, student, teacher, image, noise, importance):
    """The loss, image by image, with the sampler's own steps; the networks map (x, time) to a prediction."""
    model, errors = model_config(config), []
    theirs = sampling_grid(schedule_for(model), model.prediction, teacher_steps_of(config.distill.steps))
    time, alpha_bar, end = sampling_grid(schedule_for(model), model.prediction, config.distill.steps)
    for i in range(config.distill.steps):
        level = NoiseLevel.of(jnp.float64(alpha_bar[i]))
        start = GAMMA * noise
        if i > 0 and config.distill.inputs == "data":
            start = level.signal * image + level.noise * start
        elif i > 0:
            before = SamplingGrid(*(values[: 2 * i] for values in theirs))
            start = ddim_sample(teacher, model.prediction, start, before)
        x = start
        for their_time, *levels in list(zip(*theirs, strict=True))[2 * i : 2 * i + 2]:
            output = teacher(x, jnp.full((len(x),), their_time))
            x = ddim_step(model.prediction, output, x, *map(jnp.float64, levels))
        output = student(start, jnp.full((len(x),), time[i]))
        estimate = one_step_image(model.prediction, output, start, level)
        ratio = jnp.sqrt(1 - jnp.float64(end[i])) / level.noise
        target = (x - ratio * start) / (jnp.sqrt(jnp.float64(end[i])) - ratio * level.signal)
        weight = max(min(alpha_bar[i] / (1 - alpha_bar[i]), 5), 1)
        errors.append(importance[i] * weight * jnp.mean((estimate[i] - target[i]) ** 2))
    return jnp.stack(errors)


@pytest.mark.parametrize("inputs", ["data", "teacher"])
@pytest.mark.parametrize("prediction", ["x", "epsilon", "v"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_loss_and_its_gradient(prediction, steps, inputs, float64):
    """Against the sampler, and along a random direction against central differences."""
    config = distilling(steps, **{"model.prediction": prediction, "distill.inputs": inputs})
    randomness = randomness_of(config)
    randomness = randomness._replace(noise=randomness.noise[:, :8, :8])
    random, student = np.random.default_rng(0), jnp.asarray(STUDENT)
    image, context = (jnp.asarray(random.uniform(-1, 1, randomness.noise.shape)) for _ in range(2))

    def network(numbers):
        toy = ToyUNet(numbers)
        prepared = toy.prepare(context)
        return lambda x, time: prepared(x, toy.embed(time), rematerialize=False)

    @jax.jit
    def loss(student):
        return toy_loss(config, student, image, context, randomness)[0]

    @jax.jit
    def expected_errors(student):
        importance = np.arange(1.0, 1 + steps)
        return by_hand(config, network(student), network(TEACHER), image, randomness.noise, importance)

    errors = expected_errors(student)
    assert (errors > 0).all()
    np.testing.assert_allclose(loss(student), jnp.mean(errors), rtol=1e-5)  # the loss's weights are float32
    direction, size = jnp.asarray(random.normal(size=3)), 1e-5
    expected = (loss(student + size * direction) - loss(student - size * direction)) / (2 * size)
    np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(student), direction), expected, rtol=1e-6)


def test_timesteps_choose_among_all_steps(float64):
    """Each part of the schedule is one step: 8193 timesteps, 5 steps. The estimates show which time input was used."""
    config = distilling(5)
    cases = ([8192, 6555, 6554, 4916, 0], [0, 0, 1, 1, 4]), ([1638, 1639, 3277, 3278, 1], [4, 3, 3, 2, 4])
    for timesteps, indices in cases:
        randomness = randomness_of(config)._replace(timesteps=jnp.array(timesteps, jnp.int32))
        image = jnp.zeros_like(randomness.noise)
        found = toy_loss(config, jnp.zeros(3), image, image, randomness)[1][:, 0, 0, 0]
        time = sampling_grid(schedule_for(model_config(config)), "x", 5).time[np.array(indices)]
        np.testing.assert_allclose(found, np.tanh(np.cos(7 * time.astype(np.float64))), rtol=1e-6)


def test_all_stages_share_a_program():
    """With inputs of training images, the numbers of steps are in the teacher's table, and the table is an argument."""

    def program(steps):
        config = distilling(steps)
        noise = jnp.zeros((4, 8, 8, 3))
        randomness = step_randomness(config, jnp.int32(0), 4)._replace(noise=noise)
        model = types.SimpleNamespace(config=model_config(config), unet=ToyUNet(STUDENT))

        def loss(table):
            region = Region(noise, noise, randomness, jnp.ones(4))
            return imitation_loss(config, model, ToyUNet(TEACHER), table, region)

        return str(jax.make_jaxpr(loss)(make_teacher(config, {}).steps))

    assert program(3) == program(33)


@pytest.mark.parametrize("family", ["compact", "paper"])
def test_the_whole_loss_of_both_families(family):
    """Traced, not computed: rate, LPIPS's place and all terms are there."""
    changes = {"distill.steps": 3, "model.decode_steps": 3}
    config = distilling(3, **{"model.prediction": "epsilon"})
    if family == "compact":
        config = compact_training_config(**changes, **{"distill.inputs": "teacher"})
    weights = shapes(model_config(config))
    image = jax.ShapeDtypeStruct((2, SIDE, SIDE, 3), jnp.float32)

    def loss(weights, teacher, image):
        randomness = step_randomness(config, jnp.int32(0), 2)
        return loss_and_metrics(config, weights, image, randomness, 1.0, teacher=teacher)

    total, terms = jax.eval_shape(loss, weights, make_teacher(config, weights), image)
    assert total.shape == () and {"bpp", "diffusion_loss", "loss"} <= terms.keys()


@pytest.mark.slow
def test_the_loss_of_the_real_networks(float64):
    """Student and teacher of width 4, with other weights, in float64 on the context maps of an image."""
    config = distilling(3)
    model, randomness = model_config(config), randomness_of(config)
    weights, other = (
        {name: jnp.asarray(value, jnp.float64) for name, value in initial_weights(model, seed, latent_gain=4.0).items()}
        for seed in (0, 1)
    )
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, SIDE, SIDE, 3)))

    @jax.jit
    def ours(weights):
        return loss_and_metrics(config, weights, image, randomness, 0.0, teacher=make_teacher(config, other))[1]

    @jax.jit
    def expected(weights):
        student, teacher = merge(model, weights), merge(model, {**weights, **make_teacher(config, other).unet})
        context = student.compress(image).context
        networks = (lambda x, time, net=net: net.unet(x, time, context) for net in (student, teacher))
        return by_hand(config, *networks, image, randomness.noise, np.ones(3))

    np.testing.assert_allclose(ours(weights)["diffusion_loss"], jnp.mean(expected(weights)), rtol=1e-6)
