"""Models with random weights for tests of files, whose entropy models differ as much as possible."""

from pathlib import Path

import numpy as np

from cdc_jax.codec.bundle import save_bundle
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from tests.helpers.compact import save_compact_bundle

# Width 8 is the trained bundle's, too: one compiled encoder takes all of them.
CONFIG = ModelConfig(width=8, decode_steps=1)
_COMPRESSOR = "compressor"


def _scaled(gains: dict[str, float]) -> dict[str, np.ndarray]:
    """Initial weights with some modules' kernels and biases multiplied."""
    weights = initial_weights(CONFIG, 4, latent_gain=4.0)
    for module, gain in gains.items():
        for leaf in ("kernel", "bias"):
            weights[f"{_COMPRESSOR}.{module}.{leaf}"] *= np.float32(gain)
    return weights


def save_random_bundles(folder: Path) -> None:
    """Writes five bundles, two of them of format 2, whose names begin with "every_rate".

    random     y and z of a few integers, scales all over the tables
    coarse     means of thousands: the integer net's layers keep fewer than 16 fractional bits
    saturated  latents far beyond what symbols, tables and the integer net hold: clipped, escaped, saturated
    every_rate, every_rate_coarse    as the first two, of compact models
    """
    hyper_decoder = [f"hyper_decoder.convs.{i}" for i in range(3)]
    kinds = {
        "random": dict.fromkeys(hyper_decoder, 4.0) | {"hyper_encoder.convs.2": 8.0},
        "coarse": dict.fromkeys(hyper_decoder, 60.0) | {"encoder.downs.3": 100.0},
        "saturated": dict.fromkeys(hyper_decoder, 200.0) | {"encoder.downs.3": 1e7, "hyper_encoder.convs.2": 100.0},
    }
    for name, gains in kinds.items():
        save_bundle(folder / name, CONFIG, _scaled(gains), provenance="random weights, for tests")
    save_compact_bundle(folder / "every_rate")
    factors = dict.fromkeys(hyper_decoder, 60.0) | {"encoder.out": 2000.0, "checkerboard.out": 400.0}
    save_compact_bundle(folder / "every_rate_coarse", seed=1, factors=factors)
