"""A tiny compact variable-rate model, with all parts of the large one and random weights that give large symbols."""

import runpy
from dataclasses import asdict
from pathlib import Path

import ml_collections
import numpy as np

from cdc_jax.codec.bundle import save_bundle
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from tests.helpers.processes import ROOT


def compact_config(channels: tuple[int, ...], hyper_channels: int, hyper_width: int) -> ModelConfig:
    """A compact variable-rate model whose encoder and U-Net have these numbers of channels."""
    return ModelConfig(
        fold=4,
        encoder_channels=channels,
        unet_channels=channels,
        latent_channels=channels[-1],
        hyper_channels=hyper_channels,
        hyper_width=hyper_width,
        width=channels[0],
        transform=True,
        checkerboard=True,
        rate_anchors=4,
        beta_max=1.0,
        beta_min=1 / 64,
        decode_steps=1,
        decode_gamma=0.0,
    )


COMPACT = compact_config((8, 8, 12), hyper_channels=6, hyper_width=8)

# Factors on some modules' kernels and biases, for large z, scales over the whole range, and a checkerboard with a large
# effect.
_FACTORS = {
    "encoder.out": 20.0,
    "hyper_encoder.convs.2": 3.0,
    **{f"hyper_decoder.convs.{i}": 3.0 for i in range(3)},
    "checkerboard.out": 10.0,
}
_LOG2_GAIN = 2.0  # symbols four times as large


def compact_weights(config: ModelConfig = COMPACT, seed: int = 0, factors: dict[str, float] | None = None) -> dict:
    """Weights by name, float32: the initial ones with some modules' kernels and biases multiplied."""
    weights = initial_weights(config, seed)
    for module, factor in {**_FACTORS, **(factors or {})}.items():
        for leaf in ("kernel", "bias"):
            if f"compressor.{module}.{leaf}" in weights:
                weights[f"compressor.{module}.{leaf}"] *= np.float32(factor)
    weights["compressor.transform.log2_gain"] += np.float32(_LOG2_GAIN)
    weights["compressor.prior.medians"] += np.linspace(-1, 1, config.hyper_channels, dtype=np.float32)
    return weights


def save_compact_bundle(folder: Path, config: ModelConfig = COMPACT, **weights) -> Path:
    """Writes a bundle of these weights and returns its folder."""
    save_bundle(folder, config, compact_weights(config, **weights), provenance="random weights, for tests")
    return folder


def compact_training_config(**changes) -> ml_collections.ConfigDict:
    """configs/compact.py with the tiny model, crops of 64 pixels in batches of 2, and no LPIPS."""
    config = runpy.run_path(str(ROOT / "configs" / "compact.py"))["get_config"]()
    config.model.update({name: value for name, value in asdict(COMPACT).items() if name in config.model})
    smaller = {"data.crop": 64, "data.batch_size": 2, "loss.unet_crop": 64, "loss.rho": 0.0, "train.steps": 2}
    config.update_from_flattened_dict(smaller | changes)
    return config
