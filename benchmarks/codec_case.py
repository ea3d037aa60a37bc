"""Codecs with random weights, and images for them, for the benchmarks."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path

import numpy as np

import cdc_jax
from cdc_jax.codec.bundle import save_bundle
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.training.config import model_config


def fresh_codec(width: int) -> cdc_jax.Codec:
    """A codec of this width with random weights."""
    config = ModelConfig(width=width)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        save_bundle(bundle, config, initial_weights(config, 0, latent_gain=4.0), provenance="random weights")
        return cdc_jax.load_codec(bundle)


def compact_config() -> ModelConfig:
    """The model of configs/compact.py."""
    configs = Path(__file__).resolve().parents[1] / "configs"
    return model_config(runpy.run_path(str(configs / "compact.py"))["get_config"]())


def waves(rows: int, columns: int) -> np.ndarray:
    """uint8 [rows, columns, 3]: slow color waves and some noise."""
    image, column, random = np.empty((rows, columns, 3), np.uint8), np.arange(columns), np.random.default_rng(0)
    for row in range(rows):  # row by row, so that it hardly adds to the measured memory
        slow = [np.full(columns, np.sin(row / 40)), np.cos(column / 30), np.sin((row + column) / 50)]
        image[row] = np.clip(127.5 + 100 * np.stack(slow, -1) + random.normal(0, 10, (columns, 1)), 0, 255)
    return image
