"""The target of distillation against two steps of the project's sampler, and the loss's gradient, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.diffusion.distillation import (
    StudentSteps,
    noisy_images_of_decoding,
    per_image,
    steps_by_timestep,
    student_grid,
    teacher_image,
)
from cdc_jax.diffusion.process import NoiseLevel, diffusion_loss, one_step_image, target
from cdc_jax.diffusion.sampler import SamplingGrid, ddim_sample, ddim_step, sampling_grid
from cdc_jax.diffusion.schedule import Schedule, cosine_schedule, linear_schedule
from cdc_jax.diffusion.stages import teacher_steps_of

RANDOM = np.random.default_rng(0)
SHAPE = (4, 4, 3)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def schedule_of(prediction: str) -> Schedule:
    return linear_schedule(20000) if prediction == "epsilon" else cosine_schedule(8193)


def network(x, time):
    """Some nonlinear function whose image estimates are partly outside of [−1, 1], so that the sampler clips them."""
    return jnp.tanh(0.8 * x + jnp.cos(7 * per_image(time, x.dtype))) + 0.3 * x**2 - 0.2


def one_by_one(grid: StudentSteps) -> StudentSteps:
    """A batch that has every step once."""
    return grid.take(jnp.arange(len(grid.time)))


@pytest.mark.parametrize("prediction", ["x", "epsilon", "v"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 33])
def test_the_student_lands_where_two_steps_of_the_sampler_land(prediction, count):
    """A student that estimates x̃ makes one step of the sampler; the teacher makes its own, by brute force."""
    schedule = schedule_of(prediction)
    student = sampling_grid(schedule, prediction, count)
    teacher = sampling_grid(schedule, prediction, teacher_steps_of(count))
    x = jnp.asarray(RANDOM.normal(size=(count, *SHAPE)))
    steps = one_by_one(student_grid(schedule, prediction, count))
    image = teacher_image(prediction, network, x, steps)
    for i in range(count):
        two = SamplingGrid(*(np.asarray(values[2 * i : 2 * i + 2], np.float64) for values in teacher))
        expected = x[i : i + 1]
        for time, alpha_bar, alpha_bar_next in zip(*two, strict=True):
            output = network(expected, jnp.full((1,), time))
            expected = ddim_step(prediction, output, expected, alpha_bar, alpha_bar_next)
        level = NoiseLevel.of(jnp.float64(student.alpha_bar[i]))
        noise = (x[i] - level.signal * image[i]) / level.noise
        output = target(prediction, image[i], noise, level)
        ends = np.float64(student.alpha_bar[i]), np.float64(student.alpha_bar_next[i])
        found = ddim_step(prediction, output, x[i], *ends)
        np.testing.assert_allclose(found, expected[0], rtol=1e-8, atol=1e-8 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("prediction", ["x", "epsilon", "v"])
def test_the_target_is_the_paper_s(prediction):
    """x̃ = (z″ − (σ″/σ)·z) / (α″ − (σ″/σ)·α), Salimans & Ho 2022, appendix G."""
    schedule, count = schedule_of(prediction), 5
    student = sampling_grid(schedule, prediction, count)
    teacher = sampling_grid(schedule, prediction, teacher_steps_of(count))
    steps = student_grid(schedule, prediction, count)
    for i in range(count):
        x = jnp.asarray(RANDOM.normal(size=(1, *SHAPE)))
        two = SamplingGrid(*(jnp.asarray(values[2 * i : 2 * i + 2], jnp.float64) for values in teacher))
        end = ddim_sample(network, prediction, x, two)
        start_level, end_level = (
            NoiseLevel.of(jnp.float64(level[i])) for level in (student.alpha_bar, student.alpha_bar_next)
        )
        ratio = end_level.noise / start_level.noise
        expected = (end - ratio * x) / (end_level.signal - ratio * start_level.signal)
        found = teacher_image(prediction, network, x, steps.take(jnp.array([i])))
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * scale)


@pytest.mark.parametrize("prediction", ["x", "epsilon"])
def test_weights_and_the_steps_without_a_second_one(prediction):
    for count in (2, 3, 5, 65):
        weight = student_grid(schedule_of(prediction), prediction, count).first_weight
        assert (weight[:-1] > 0).all() and (weight[:-1] < 1).all() and weight[-1] == 1
    single = student_grid(schedule_of(prediction), prediction, 1)
    assert single.first_weight == [0] and single.middle_time == [0]
    assert single.time == np.float32(1 - 1 / schedule_of(prediction).num_timesteps)


@pytest.mark.parametrize("prediction", ["x", "epsilon"])
def test_every_timestep_has_a_step(prediction):
    """The table has one size for all numbers of steps, and each step its equal part of the schedule."""
    schedule = schedule_of(prediction)
    for count in (1, 2, 5, 33):
        grid, table = (make(schedule, prediction, count) for make in (student_grid, steps_by_timestep))
        assert {values.shape for values in table} == {(schedule.num_timesteps,)}
        assert table.index[-1] == 0 and table.index[0] == count - 1
        numbers = np.bincount(table.index)
        assert len(numbers) == count and numbers.max() - numbers.min() <= 1
        for values, expected in zip(table, grid, strict=True):
            np.testing.assert_array_equal(values, expected[table.index].astype(values.dtype))


def test_time_inputs_are_those_of_sampling():
    """For epsilon, a decode's time input is j/S, so teacher and student get different ones for the same image."""
    grid = student_grid(linear_schedule(20000), "epsilon", 3)
    np.testing.assert_allclose(grid.time, np.array([2, 1, 0]) / 3, rtol=1e-6)
    np.testing.assert_allclose(grid.teacher_time, np.array([4, 2, 0]) / 5, rtol=1e-6)
    np.testing.assert_allclose(grid.middle_time, np.array([3, 1, 0]) / 5, rtol=1e-6)
    grid = student_grid(cosine_schedule(8193), "x", 3)
    np.testing.assert_array_equal(grid.time, grid.teacher_time)
    np.testing.assert_allclose(grid.middle_time * 8193, [6144, 2048, 0], atol=1e-3)


@pytest.mark.parametrize("prediction", ["x", "epsilon", "v"])
def test_the_gradient_of_the_loss(prediction):
    """That with respect to the student's output, against central differences."""
    grid = student_grid(schedule_of(prediction), prediction, 5)
    steps = grid.take(jnp.array([0, 1, 4]))
    x, output, direction = (jnp.asarray(RANDOM.normal(size=(3, *SHAPE))) for _ in range(3))
    level = NoiseLevel.of(per_image(steps.alpha_bar, jnp.float64))

    def loss(output):
        image = one_step_image(prediction, output, x, level)
        wanted, importance = teacher_image(prediction, network, x, steps), jnp.array([1.0, 2.0, 3.0])
        return diffusion_loss("x", image, wanted, None, steps.alpha_bar, weight_floor=1.0, importance=importance)

    size = 1e-4
    expected = (loss(output + size * direction) - loss(output - size * direction)) / (2 * size)
    found = jnp.vdot(jax.grad(loss)(output), direction)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_weights_of_the_loss_by_hand():
    alpha_bar = jnp.array([0.95, 0.5, 0.02, 1e-11])
    ones = jnp.ones((4, *SHAPE))

    def loss(**options):
        return float(diffusion_loss("x", 2 * ones, ones, None, alpha_bar, **options))

    assert loss(weight_floor=1.0) == pytest.approx(np.mean([5, 1, 1, 1]))
    assert loss(weight_floor=0.0) == pytest.approx(np.mean([5, 1, 0.02 / 0.98, 0]))
    weighted = np.array([1.0, 0.0, 2.0, 0.5])
    assert loss(weight_floor=1.0, importance=jnp.asarray(weighted)) == pytest.approx(np.mean(weighted * [5, 1, 1, 1]))


def test_noisy_images_are_those_of_a_decode():
    """Before step k: the result of the first k steps of the sampler."""
    grid = sampling_grid(cosine_schedule(8193), "x", 5)
    start = jnp.asarray(RANDOM.normal(size=(5, *SHAPE)))
    found = noisy_images_of_decoding("x", network, start, grid, jnp.array([0, 1, 2, 3, 4]))
    np.testing.assert_array_equal(found[0], start[0])
    for k in range(1, 5):
        expected = ddim_sample(network, "x", start[k : k + 1], SamplingGrid(*(values[:k] for values in grid)))
        np.testing.assert_allclose(found[k], expected[0], rtol=1e-6, atol=1e-6)
