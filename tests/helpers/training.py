"""Runs `python -m cdc_jax.main` on the smallest model that still learns, compiled as quickly as other tests."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import ml_collections
import numpy as np

from tests.helpers.compact import compact_training_config
from tests.helpers.processes import ROOT, fast_environment

CONFIG = ROOT / "tests" / "helpers" / "paper_layout.py"


def tiny_settings(**changes) -> dict[str, object]:
    """Settings that differ from the tests' configuration."""
    return {
        "model.width": 8,
        "model.decode_steps": 2,
        "data.crop": 128,
        "loss.beta": 5e-4,
        "loss.beta_start": 1e-5,
        "loss.beta_ramp_steps": 300,
        "train.steps": 120,
        "train.steps_per_call": 5,
        "train.eval_steps": (1, 2),  # the same numbers of steps as elsewhere: each is compiled
        "train.eval_every": 120,
        "train.checkpoint_every": 60,
        **changes,
    }


def tiny_config(**changes) -> ml_collections.ConfigDict:
    """`tiny_settings` as a configuration, for tests that call the trainer's functions."""
    config = runpy.run_path(str(CONFIG))["get_config"]()
    config.update_from_flattened_dict(tiny_settings(**changes))
    return config


def main_command(workdir: Path, *arguments: str, **settings) -> list[str]:
    """The command line of a run with the tests' configuration and these settings."""
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    return [
        sys.executable, "-m", "cdc_jax.main", f"--config={CONFIG}", f"--workdir={workdir}", *overrides, *arguments
    ]  # fmt: skip


def run_main(workdir: Path, *arguments: str, timeout_seconds: int = 600, **settings) -> subprocess.CompletedProcess:
    """Runs `main_command`; returns the finished process."""
    command = main_command(workdir, *arguments, **settings)
    return subprocess.run(command, capture_output=True, text=True, env=fast_environment(), timeout=timeout_seconds)


def parallel_config(*, compact: bool = True, **changes) -> ml_collections.ConfigDict:
    """A configuration with eight crops per step, which up to eight devices can share.

    The compact model takes half the time. The paper's model has few symbols that are not 0, so that hardly any rounds
    to another integer in float32.
    """
    changes = {"data.batch_size": 8, "ema.every": 1, **changes}
    if compact:
        return compact_training_config(**changes)
    return tiny_config(**{"model.width": 4, "data.crop": 64, **changes})


def image_rows(config: ml_collections.ConfigDict, step: int) -> np.ndarray:
    """The global batch of a step, without the data pipeline: smooth noise, uint8."""
    random = np.random.default_rng(step)
    crop = config.data.crop
    coarse = random.integers(0, 256, (config.data.batch_size, crop // 8, crop // 8, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8)
