"""The loss of distillation: one step of the student against two of its teacher.

Teacher and student are two U-Nets with the same frozen compressor, so they get the same context maps. The noisy images
are like those in decoding: the first step starts from γ·ε. In later steps, the noise is still γ·ε, and the image is
either the training image, as in the paper, or the teacher's own estimate: `distill.inputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from cdc_jax.diffusion.distillation import (
    Denoiser,
    StudentSteps,
    noisy_images_of_decoding,
    per_image,
    steps_by_timestep,
    teacher_image,
)
from cdc_jax.diffusion.process import NoiseLevel, add_noise, diffusion_loss, one_step_image
from cdc_jax.diffusion.sampler import sampling_grid
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.diffusion.stages import teacher_steps_of
from cdc_jax.models.cdc import CDC
from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import Params
from cdc_jax.models.unet import UNet
from cdc_jax.models.weight_groups import Part, part_of
from cdc_jax.training.config import model_config
from cdc_jax.training.region import Region


class Teacher(NamedTuple):
    """What a training step needs from a teacher, in addition to the weights that it shares with its student.

    Attributes:
      unet: the weights of its U-Net by name.
      steps: the student's step for each timestep (`steps_by_timestep`).
    """

    unet: Params
    steps: StudentSteps


def make_teacher(config: ml_collections.ConfigDict, weights: Mapping[str, Array]) -> Teacher:
    """The teacher of one stage, `distill.steps`, given all its weights by name."""
    model = model_config(config)
    unet = {name: value for name, value in weights.items() if part_of(name) is Part.UNET}
    return Teacher(unet, steps_by_timestep(schedule_for(model), model.prediction, config.distill.steps))


def imitation_loss(
    config: ml_collections.ConfigDict,
    model: CDC,
    teacher: UNet,
    steps: StudentSteps,
    region: Region,
) -> tuple[Float[Array, ""], Float[Array, "b s s 3"]]:
    """The loss of a batch, and the student's estimates x̂₀, not clipped. Only the student receives gradients.

    Args:
      config: the run's settings, with `distill.steps`.
      model: the student.
      teacher: the teacher's U-Net.
      steps: the student's step for each timestep.
      region: what the U-Net is trained on. Its timesteps select the student's steps.
    """
    image, context, randomness, importance = region
    prediction, steps = model.config.prediction, steps.take(randomness.timesteps)
    quality = randomness.quality if model.config.variable_rate else None
    student_denoise = _denoiser(model.unet, context, quality, rematerialize=config.train.rematerialize)
    teacher_denoise = _denoiser(teacher, context, quality)

    noisy = _noisy_images(config, model.config, teacher_denoise, image, randomness.noise, steps)
    target = jax.lax.stop_gradient(teacher_image(prediction, teacher_denoise, noisy, steps))
    level = NoiseLevel.of(per_image(steps.alpha_bar, noisy.dtype))
    estimate = one_step_image(prediction, student_denoise(noisy, steps.time), noisy, level)
    floor = config.loss.weight_floor
    loss = diffusion_loss("x", estimate, target, None, steps.alpha_bar, weight_floor=floor, importance=importance)
    return loss, estimate


def _noisy_images(
    config: ml_collections.ConfigDict,
    model: ModelConfig,
    teacher: Denoiser,
    image: Float[Array, "b s s 3"],
    noise: Float[Array, "b s s 3"],
    steps: StudentSteps,
) -> Float[Array, "b s s 3"]:
    """The student's inputs in these steps, with noise of scale γ as in decoding."""
    start = config.model.decode_gamma * noise
    if config.distill.inputs == "teacher" and config.distill.steps > 1:
        teacher_count = teacher_steps_of(config.distill.steps)
        grid = sampling_grid(schedule_for(model), model.prediction, teacher_count)
        return noisy_images_of_decoding(model.prediction, teacher, start, grid, 2 * steps.index)
    noisy = add_noise(image, start, NoiseLevel.of(per_image(steps.alpha_bar, image.dtype)))
    return jnp.where((steps.index == 0)[:, None, None, None], start, noisy)


def _denoiser(
    unet: UNet, context: Context, quality: Float[Array, " b"] | None, *, rematerialize: bool = False
) -> Denoiser:
    prepared = unet.prepare(context)
    return lambda x, time: prepared(x, unet.embed(time, quality), rematerialize=rematerialize)
