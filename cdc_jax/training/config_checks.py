"""Checks of a configuration: valid values, combinations, overrides, and what may change when a run resumes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from cdc_jax.diffusion.stages import is_nested
from cdc_jax.errors import ConfigError
from cdc_jax.training.config import model_config, stored_config
from cdc_jax.training.old_names import refuse_old_names

_CHOICES = {
    "init_weights": ("ema", "raw"),
    "optimizer.schedule": ("step", "cosine", "trapezoid"),
    "data.source": ("folder", "scikit-image", "tfds", "vimeo90k"),
    "data.small_images": ("skip", "upscale"),
    "distill.inputs": ("data", "teacher"),
    "train.compute_type": ("float32", "bfloat16"),
    "train.unet_precision": ("default", "high", "highest"),
}
_AT_LEAST_ONE = (
    "data.batch_size",
    "train.steps",
    "train.steps_per_call",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.accumulate",
)
_RANGES = {
    "data.max_corrupt_fraction": (0, 1),
    "data.max_downscale": (1, 8),
    "loss.max_noise_fraction": (0, 1),
}

# Settings that may not change when a run resumes. The same holds for the loss and model settings, except the decoding
# defaults. Otherwise, one run would contain two models, and the objectives of its checkpoints would not be comparable.
_FIXED = (
    "seed",
    "init_from",
    "freeze_entropy",
    "data.source",
    "data.name",
    "data.split",
    "data.crop",
    "data.batch_size",
    "data.validation",
)


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError for values that are invalid or do not fit together."""
    refuse_old_names(_keys(config))
    model_config(config)
    _check_crops(config)
    _check_each(config)
    if not 0 <= config.loss.silent_fraction <= config.loss.max_noise_fraction:
        raise ConfigError(
            f"loss.silent_fraction is {config.loss.silent_fraction}; it must be between 0 and loss.max_noise_fraction, "
            f"{config.loss.max_noise_fraction}."
        )
    if config.data.batch_size % config.train.accumulate:
        raise ConfigError(
            f"data.batch_size ({config.data.batch_size}) is not a multiple of train.accumulate "
            f"({config.train.accumulate})."
        )
    if config.freeze_entropy and not config.init_from:
        raise ConfigError("freeze_entropy keeps the entropy model of init_from: name a run or a bundle there.")
    if config.distill.steps:
        _check_distillation(config)


def _check_crops(config: ml_collections.ConfigDict) -> None:
    for name, size in (("data.crop", config.data.crop), ("loss.unet_crop", config.loss.unet_crop)):
        if size % 64 or size < 0:
            raise ConfigError(f"{name} is {size}; it must be a multiple of 64 pixels.")
    if config.data.crop == 0:
        raise ConfigError("data.crop is 0; it must be a positive multiple of 64 pixels.")
    if config.loss.unet_crop > config.data.crop:
        raise ConfigError(f"loss.unet_crop ({config.loss.unet_crop}) is larger than data.crop ({config.data.crop}).")


def _check_distillation(config: ml_collections.ConfigDict) -> None:
    steps, teacher_steps = config.distill.steps, config.distill.teacher_steps
    if not config.init_from:
        raise ConfigError("distill.steps needs a teacher: name a run or a bundle in init_from.")
    for name, count in (("distill.steps", steps), ("distill.teacher_steps", teacher_steps)):
        if not is_nested(count):
            raise ConfigError(f"{name} is {count}; it must be 1, 2, 3, 5, 9, 17, 33, 65 or another 2^k + 1.")
    if not steps < teacher_steps:
        raise ConfigError(f"distill.steps is {steps}; it must be below distill.teacher_steps, {teacher_steps}.")
    most = model_config(config).num_timesteps
    if teacher_steps > most:
        raise ConfigError(f"distill.teacher_steps is {teacher_steps}; it must be at most {most}.")
    if config.model.decode_steps != steps:
        raise ConfigError(f"model.decode_steps is {config.model.decode_steps}; it must be distill.steps, {steps}.")
    if not config.freeze_entropy:
        raise ConfigError("Distillation needs freeze_entropy=True: the student opens its teacher's files.")
    if not config.loss.weight_floor > 0:
        raise ConfigError("loss.weight_floor must be above 0: the first step, from pure noise, would have no weight.")
    if config.model.decode_gamma == 0 and config.distill.inputs == "data":
        raise ConfigError(
            "model.decode_gamma is 0, so training images would reach the student without noise: set "
            "distill.inputs=teacher."
        )


def _check_each(config: ml_collections.ConfigDict) -> None:
    """Checks settings whose valid values do not depend on other settings."""
    for name in _AT_LEAST_ONE:
        if _value(config, name) < 1:
            raise ConfigError(f"{name} is {_value(config, name)}; it must be at least 1.")
    for name, (least, most) in _RANGES.items():
        if not least <= _value(config, name) <= most:
            raise ConfigError(f"{name} is {_value(config, name)}; it must be between {least} and {most}.")
    for name, choices in _CHOICES.items():
        if _value(config, name) not in choices:
            options = ", ".join(map(repr, choices))
            raise ConfigError(f"{name} is {_value(config, name)!r}; it must be one of {options}.")
    if not config.optimizer.epsilon > 0:
        raise ConfigError(f"optimizer.epsilon is {config.optimizer.epsilon}; it must be positive.")
    if not 0 <= config.loss.rho < 1:
        raise ConfigError(f"loss.rho is {config.loss.rho}; it must be at least 0 and less than 1.")
    if config.data.workers < 0:
        raise ConfigError(f"data.workers is {config.data.workers}; it must be 0 (threads) or a number of processes.")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"seed is {config.seed}; it must be between 0 and 2³² − 1.")


def check_same_run(stored: Mapping, config: ml_collections.ConfigDict, workdir: object) -> None:
    """Raises ConfigError if a run would resume with a different seed, data, model, loss or teacher.

    The number of steps may change.

    Args:
      stored: the configuration that the run's checkpoint was saved with.
      config: the configuration to resume with.
      workdir: the run's folder, for the message.
    """
    older = stored_config(stored)
    model = [f"model.{key}" for key in config.model if not key.startswith("decode_")]
    if config.distill.steps:
        model.append("model.decode_gamma")  # a student is trained with it
    rest = [f"{part}.{key}" for part in ("loss", "distill") for key in config[part]]
    for name in (*_FIXED, *model, *rest):
        new, old = _value(config, name), _value(older, name)
        if old != new:
            raise ConfigError(
                f"The run in {workdir} was started with {name}={old!r}, not {new!r}: resume it with its settings, or "
                "name another --workdir (init_from takes over the weights)."
            )


def _value(config: ml_collections.ConfigDict, name: str) -> Any:
    """The value of a setting, given its dotted name."""
    for key in name.split("."):
        config = config[key]
    return config


def check_overrides(config: ml_collections.ConfigDict, keys: Iterator[str]) -> None:
    """Raises ConfigError for an unknown key among dotted names such as "loss.beta", and suggests a similar one.

    Old names of settings are refused too, even if the configuration file defines settings with these names.
    """
    known, keys = list(_keys(config)), list(keys)
    refuse_old_names([*known, *keys])
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ConfigError(f"Unknown setting config.{key}; did you mean config.{near[0]}?")


def _keys(config: Mapping, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ml_collections.ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
