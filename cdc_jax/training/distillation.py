"""Progressive distillation as a run: the argument of its configuration file, its teacher, its stages.

    --config=configs/distill.py:teacher=runs/rate/bundle,steps=5

A teacher of 65 steps gets students of 33, 17, 9 and 5 steps, each the teacher of the next. Each stage is a run with its
own optimizer, schedule and checkpoints, in a folder such as `stages/33-steps` of the workdir; the last one is in the
workdir itself. So the same command resumes after any interruption, and every student can be exported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from etils import epath
from jaxtyping import Array

from cdc_jax.codec.bundle import read_model_config, weights_hash
from cdc_jax.codec.bundle_folder import bundle_folder, is_bundle
from cdc_jax.diffusion.stages import stage_steps
from cdc_jax.errors import CheckpointError, ConfigError
from cdc_jax.io import hub
from cdc_jax.io.files import is_remote, reraise_as
from cdc_jax.models.config import ModelConfig
from cdc_jax.training.checkpoints import newest_settings
from cdc_jax.training.config import model_config, stored_config
from cdc_jax.training.initialization import StartingWeights, starting_weights
from cdc_jax.training.phases import parse_setting

_VALUES = {"teacher": str, "steps": int, "teacher_steps": int, "gamma": float, "rho": float}
_DECODING = ("decode_steps", "decode_gamma")  # settings that may differ between teacher and student


def apply_distillation(config: ml_collections.ConfigDict, argument: str) -> ml_collections.ConfigDict:
    """Changes a configuration, in place, to the distillation of a teacher, and returns it.

    Args:
      config: the settings to change. The teacher's model replaces `model`.
      argument: settings separated by commas: teacher=…, a bundle (also on the hub) or a run; steps=…, the student's;
        and optionally teacher_steps=… (by default the number that the teacher decodes in), gamma=… (the scale of the
        initial noise, by default the teacher's) and rho=…

    Raises:
      ConfigError: a setting is unknown, or the teacher or steps are missing.
      BundleError, CheckpointError: the teacher is neither a bundle nor a run, or cannot be read.
    """
    values = dict(parse_setting(setting, _VALUES) for setting in argument.split(",") if setting)
    for name in ("teacher", "steps"):
        if name not in values:
            raise ConfigError(
                f"Distillation needs {name}=…, as in configs/distill.py:teacher=runs/rate/bundle,steps=5."
            )
    model = _model_of(values["teacher"])
    gamma = values.get("gamma", model.decode_gamma)
    with config.unlocked():
        config.init_from, config.freeze_entropy = values["teacher"], True
        config.model.update({name: getattr(model, name) for name in config.model})
        config.model.decode_steps, config.model.decode_gamma = values["steps"], gamma
        config.loss.rho = values.get("rho", config.loss.rho)
        config.distill.steps = values["steps"]
        config.distill.teacher_steps = values.get("teacher_steps", model.decode_steps)
        config.distill.inputs = "data" if gamma else "teacher"
    return config


def _model_of(teacher: str) -> ModelConfig:
    """The settings of a teacher's model. Initializes no devices, since the processes of a run have not joined yet."""
    origin = epath.Path(bundle_folder(teacher) if hub.is_hub_name(teacher) else teacher)
    with reraise_as(f"Cannot read the teacher, {teacher}", origin), tempfile.TemporaryDirectory() as folder:
        if (origin / "checkpoints").is_dir():
            return model_config(stored_config(newest_settings(origin)))
        if is_bundle(origin):
            local = Path(folder) if is_remote(origin) else Path(origin)
            if is_remote(origin):
                (local / "config.json").write_bytes((origin / "config.json").read_bytes())
            return read_model_config(local)
    raise CheckpointError(f"The teacher is {teacher!r}, which is neither a run's folder nor a bundle.")


def load_teacher(config: ml_collections.ConfigDict) -> StartingWeights:
    """The first teacher, on the host. The first student starts from its weights.

    Raises:
      ConfigError: its model is not the configuration's.
      CheckpointError, BundleError, CdcError: as `starting_weights`.
    """
    teacher = starting_weights(config)
    expected, found = model_config(config).to_dict(), teacher.model.to_dict()
    for name in expected.keys() - set(_DECODING):
        if found[name] != expected[name]:
            raise ConfigError(
                f"The teacher {config.init_from} has model.{name}={found[name]!r}, not {expected[name]!r}: teacher and "
                "student have the same architecture."
            )
    return next_teacher(teacher, teacher.weights)


def stages(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> list[tuple[ml_collections.ConfigDict, epath.Path]]:
    """(settings, folder) of each stage. Students before the last one are measured at their own number of steps."""
    *earlier, last = stage_steps(config.distill.teacher_steps, config.distill.steps)
    result = []
    for steps in earlier:
        stage = config.copy_and_resolve_references()
        stage.distill.steps = stage.model.decode_steps = steps
        stage.train.eval_steps = (steps,)
        result.append((stage, workdir / "stages" / f"{steps}-steps"))
    return [*result, (config, workdir)]


def with_teacher(config: ml_collections.ConfigDict, weights: Mapping[str, Array]) -> ml_collections.ConfigDict:
    """A stage's settings with its teacher's hash, so that it does not resume with another teacher."""
    config = config.copy_and_resolve_references()
    config.distill.teacher_sha256 = weights_hash(weights)
    return config


def next_teacher(teacher: StartingWeights, student: Mapping[str, Array]) -> StartingWeights:
    """A trained student as the teacher of the next one. Files keep the first teacher's coding model.

    The weights are copied to the host, because the student's training state, which starts with them, is donated.
    """
    return teacher._replace(weights={name: np.asarray(value) for name, value in student.items()})


def lineage(config: ml_collections.ConfigDict) -> Sequence[int]:
    """The numbers of steps from the first teacher to the student of this configuration."""
    return (config.distill.teacher_steps, *stage_steps(config.distill.teacher_steps, config.distill.steps))
