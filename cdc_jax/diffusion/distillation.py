"""Progressive distillation (Salimans & Ho 2022): a student learns to match two DDIM steps of its teacher in one.

The sampling grids nest. Decoding in S = 2^k + 1 steps visits all timesteps of decoding in (S + 1) / 2 steps, and one
more between any two of them. From the noisy image x at level ᾱ, the teacher steps to ᾱ' and then to ᾱ″. The student
gets there in one step if its estimate of the clean image is

    (7)  x̃ = w·x̂₁ + (1−w)·x̂₂,    w = (σ″·α'/σ' − σ″·α/σ) / (α″ − σ″·α/σ),    α = √ᾱ, σ = √(1−ᾱ)

where x̂₁ and x̂₂ are the teacher's two estimates, clipped as in sampling. This is the paper's target, written as a
weighted mean: 0 ≤ w ≤ 1, and there is no division by a small difference of images.

The last step of decoding goes from n = 0 to the clean image, in one step for both teacher and student (w = 1). Only a
one-step student has no step at n = 0: it goes from n = T − 1 to the clean image, where its teacher takes the two steps
n = T − 1 → 0 and n = 0 → clean image. Equation (7) also holds there, with σ″ = 0 and therefore w = 0.

The loss is the weighted squared error of the student's x̂₀, the `process.diffusion_loss` of "x", for every prediction:
where there is hardly any signal, the error of "epsilon" or "v" says little about the image, and there a few steps have
to produce all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cdc_jax.diffusion.process import NoiseLevel, estimate
from cdc_jax.diffusion.sampler import SamplingGrid, ddim_step, sampling_grid
from cdc_jax.diffusion.schedule import Schedule
from cdc_jax.diffusion.stages import teacher_steps_of

Denoiser = Callable[[Float[Array, "b h w 3"], Float[Array, " b"]], Float[Array, "b h w 3"]]


class StudentSteps(NamedTuple):
    """The student's steps: all S of them, noisiest first, or one for each image of a batch.

    Attributes:
      index: from 0, the noisiest step, to S − 1.
      time: the student's time input.
      alpha_bar: ᾱ of the noisy image.
      teacher_time: the teacher's time input for the same noisy image, which differs for "epsilon".
      middle_time: the teacher's time input in its second step.
      middle_alpha_bar: ᾱ' between the teacher's steps.
      first_weight: w in (7), from 0 to 1.
    """

    index: Int[Array, "..."]
    time: Float[Array, "..."]
    alpha_bar: Float[Array, "..."]
    teacher_time: Float[Array, "..."]
    middle_time: Float[Array, "..."]
    middle_alpha_bar: Float[Array, "..."]
    first_weight: Float[Array, "..."]

    def take(self, index: Int[Array, " b"]) -> StudentSteps:
        """The steps with these indices."""
        return StudentSteps(*(jnp.asarray(values)[index] for values in self))


def student_grid(schedule: Schedule, prediction: str, steps: int) -> StudentSteps:
    """The steps of a student that decodes in `steps` steps, with the time inputs of sampling.

    Args:
      schedule: the noise schedule.
      prediction: "x", "epsilon" or "v".
      steps: S, one of 1, 2, 3, 5, 9, … (see `stages.is_nested`).

    Raises:
      ValueError: the teacher would have more steps than the schedule.
    """
    student = sampling_grid(schedule, prediction, steps)
    teacher = sampling_grid(schedule, prediction, teacher_steps_of(steps))
    first = 2 * np.arange(steps)
    second = np.minimum(first + 1, len(teacher.time) - 1)  # for a last, single step: the same step again
    assert np.array_equal(teacher.alpha_bar[first], student.alpha_bar)
    (signal, noise), (middle_signal, middle_noise), (end_signal, end_noise) = (
        (np.sqrt(level), np.sqrt(1 - level))
        for level in (
            student.alpha_bar.astype(np.float64),
            teacher.alpha_bar[second].astype(np.float64),
            student.alpha_bar_next.astype(np.float64),
        )
    )
    kept = end_noise * signal / noise
    weight = (end_noise * middle_signal / middle_noise - kept) / (end_signal - kept)
    return StudentSteps(
        index=np.arange(steps, dtype=np.int32),
        time=student.time,
        alpha_bar=student.alpha_bar,
        teacher_time=teacher.time[first],
        middle_time=teacher.time[second],
        middle_alpha_bar=teacher.alpha_bar[second],
        first_weight=np.where(second > first, weight, 1.0),
    )


def steps_by_timestep(schedule: Schedule, prediction: str, steps: int) -> StudentSteps:
    """The student's step that trains at each timestep n = 0 … T − 1: arrays [T], float32 and int32.

    The S equal parts of the schedule stand for the S steps. The table has the same size for all S, so that all stages
    of distillation can share a compiled program that takes it as an argument. Arguments and errors are those of
    `student_grid`.
    """
    count = schedule.num_timesteps
    index = steps - 1 - np.arange(count) * steps // count
    grid = student_grid(schedule, prediction, steps)
    return StudentSteps(grid.index[index], *(values[index].astype(np.float32) for values in grid[1:]))


def teacher_image(
    prediction: str, denoise: Denoiser, x: Float[Array, "b h w 3"], steps: StudentSteps
) -> Float[Array, "b h w 3"]:
    """x̃ of (7): the estimate that takes the student in one step to where the teacher arrives in two.

    Args:
      prediction: what the teacher predicts: "x", "epsilon" or "v".
      denoise: the teacher: (noisy images, time inputs) → its prediction.
      x: noisy images.
      steps: the student's step of each image, as from `StudentSteps.take`.
    """
    alpha_bar, middle, weight = (
        per_image(values, x.dtype) for values in (steps.alpha_bar, steps.middle_alpha_bar, steps.first_weight)
    )
    output = denoise(x, steps.teacher_time)
    first = estimate(prediction, output, x, NoiseLevel.of(alpha_bar)).image
    x = ddim_step(prediction, output, x, alpha_bar, middle)
    second = estimate(prediction, denoise(x, steps.middle_time), x, NoiseLevel.of(middle)).image
    return weight * first + (1 - weight) * second


def noisy_images_of_decoding(
    prediction: str, denoise: Denoiser, start: Float[Array, "b h w 3"], grid: SamplingGrid, index: Int[Array, " b"]
) -> Float[Array, "b h w 3"]:
    """The noisy images that decoding reaches before step `index`, which may differ between images.

    Args:
      prediction: what the network predicts: "x", "epsilon" or "v".
      denoise: the network: (noisy images, time inputs) → its prediction.
      start: γ·N(0, 1).
      grid: the decoding steps.
      index: the step of each image, from 0 to S − 1.
    """

    def keep(kept, x, k):
        return jnp.where((index == k)[:, None, None, None], x, kept)

    def step(carry, inputs):
        (x, kept), (k, time, alpha_bar, alpha_bar_next) = carry, inputs
        output = denoise(x, jnp.full((x.shape[0],), time, jnp.float32))
        return (ddim_step(prediction, output, x, alpha_bar, alpha_bar_next), keep(kept, x, k)), None

    last = len(grid.time) - 1
    inputs = (jnp.arange(last), *(jnp.asarray(values[:last]) for values in grid))
    (x, kept), _ = jax.lax.scan(step, (start, start), inputs)
    return keep(kept, x, last)


def per_image(values: Float[Array, " b"], dtype: jnp.dtype) -> Float[Array, "b 1 1 1"]:
    """One value per image, to be broadcast against images."""
    return jnp.asarray(values).astype(dtype)[:, None, None, None]
