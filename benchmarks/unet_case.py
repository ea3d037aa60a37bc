"""A U-Net with random weights, and inputs for it, for the benchmarks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights


def unet_case(width: int, side: int, batch: int = 1):
    """(config, weights, noisy image, times, context maps)."""
    config = ModelConfig(width=width)
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    context = tuple(draw(batch, side >> i, side >> i, c) for i, c in enumerate(config.context_channels))
    weights = jax.device_put(initial_weights(config, 0))
    return config, weights, draw(batch, side, side, 3), jnp.full((batch,), 0.3), Context(context, None)
