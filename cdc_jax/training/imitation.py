"""The loss of distillation: one step of the student against two of its teacher.

Teacher and student are two U-Nets with one frozen compressor, so they get the same context maps. The noisy images are
those that decoding meets. Its first step starts from γ·ε. In later steps, γ·ε is still the noise, and the image is
either the training image, as in the paper, or the teacher's own estimate: `distill.inputs`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Int

from cdc_jax.diffusion.distillation import (
    Denoiser,
    StudentSteps,
    distillation_loss,
    noisy_images_of_decoding,
    per_image,
    student_grid,
    teacher_image,
)
from cdc_jax.diffusion.process import NoiseLevel, add_noise, one_step_image
from cdc_jax.diffusion.sampler import sampling_grid
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.diffusion.stages import teacher_steps_of
from cdc_jax.models.cdc import CDC
from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.unet import UNet
from cdc_jax.training.randomness import StepRandomness


def imitation_loss(
    config: ml_collections.ConfigDict,
    model: CDC,
    teacher: UNet,
    image: Float[Array, "b s s 3"],
    context: Context,
    randomness: StepRandomness,
    importance: Float[Array, " b"],
) -> tuple[Float[Array, ""], Float[Array, "b s s 3"]]:
    """The loss of a batch, and the student's estimates x̂₀, not clipped. Only the student has a gradient.

    Args:
      config: the run's settings, with `distill.steps`.
      model: the student.
      teacher: the teacher's U-Net.
      image: x₀ in [−1, 1].
      context: the context maps of `image`.
      randomness: the random numbers of these images. Each timestep n, uniform on {0, …, T−1}, chooses one of the
        student's S steps, by the S-th part of that range in which it lies.
      importance: each image's weight in the loss.
    """
    count, prediction = config.distill.steps, model.config.prediction
    index = count - 1 - randomness.timesteps * count // model.config.num_timesteps
    steps = student_grid(schedule_for(model.config), prediction, count).take(index)
    quality = randomness.quality if model.config.variable_rate else None
    student_denoise = _denoiser(model.unet, context, quality, rematerialize=config.train.rematerialize)
    teacher_denoise = _denoiser(teacher, context, quality)

    noisy = _noisy_images(config, model.config, teacher_denoise, image, randomness.noise, steps, index)
    target = jax.lax.stop_gradient(teacher_image(prediction, teacher_denoise, noisy, steps))
    level = NoiseLevel.of(per_image(steps.alpha_bar, noisy.dtype))
    estimate = one_step_image(prediction, student_denoise(noisy, steps.time), noisy, level)
    floor = config.loss.weight_floor
    loss = distillation_loss(estimate, target, steps.alpha_bar, weight_floor=floor, importance=importance)
    return loss, estimate


def _noisy_images(
    config: ml_collections.ConfigDict,
    model: ModelConfig,
    teacher: Denoiser,
    image: Float[Array, "b s s 3"],
    noise: Float[Array, "b s s 3"],
    steps: StudentSteps,
    index: Int[Array, " b"],
) -> Float[Array, "b s s 3"]:
    """The student's inputs before its steps `index`, with noise of scale γ as in decoding."""
    start = config.model.decode_gamma * noise
    if config.distill.inputs == "teacher" and config.distill.steps > 1:
        teacher_count = teacher_steps_of(config.distill.steps)
        grid = sampling_grid(schedule_for(model), model.prediction, teacher_count)
        return noisy_images_of_decoding(model.prediction, teacher, start, grid, 2 * index)
    noisy = add_noise(image, start, NoiseLevel.of(per_image(steps.alpha_bar, image.dtype)))
    return jnp.where((index == 0)[:, None, None, None], start, noisy)


def _denoiser(
    unet: UNet, context: Context, quality: Float[Array, " b"] | None, *, rematerialize: bool = False
) -> Denoiser:
    prepared = unet.prepare(context)
    return lambda x, time: prepared(x, unet.embed(time, quality), rematerialize=rematerialize)
