"""Codecs with fresh weights and pictures for them, for the benchmarks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import cdc_jax
from cdc_jax.bundle import save_bundle
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initial import initial_weights


def fresh_codec(width: int) -> cdc_jax.Codec:
    """Of a model of this width with random weights."""
    config = ModelConfig(width=width)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        save_bundle(bundle, config, initial_weights(config, 0, latent_gain=4.0), provenance="random weights")
        return cdc_jax.load_codec(bundle)


def waves(rows: int, columns: int) -> np.ndarray:
    """uint8 [rows, columns, 3]: slow colour waves and some noise."""
    row, column = np.arange(rows, dtype=np.float32)[:, None], np.arange(columns, dtype=np.float32)
    slow = np.stack([np.sin(row / 40 + 0 * column), np.cos(column / 30 + 0 * row), np.sin((row + column) / 50)], -1)
    grain = np.random.default_rng(0).normal(0, 10, (rows, columns, 1)).astype(np.float32)
    return np.clip(127.5 + 100 * slow + grain, 0, 255).astype(np.uint8)
