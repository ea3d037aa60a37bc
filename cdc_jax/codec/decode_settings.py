"""How to decode: the caller's wishes, the model's defaults for the others, and what is possible."""

from __future__ import annotations

import math
from typing import NamedTuple

from cdc_jax.errors import ConfigError
from cdc_jax.models.config import ModelConfig


class DecodeSettings(NamedTuple):
    """Checked and complete; the attributes are those of `Codec.decompress`."""

    steps: int
    seed: int
    gamma: float
    eta: float


def decode_settings(
    config: ModelConfig, steps: int | None, seed: int, gamma: float | None, eta: float
) -> DecodeSettings:
    """Fills in the model's defaults.

    Raises:
      ConfigError: steps, seed, gamma or eta is impossible.
    """
    steps = config.decode_steps if steps is None else steps
    gamma = config.decode_gamma if gamma is None else gamma
    if not 1 <= steps <= config.num_timesteps:
        raise ConfigError(f"steps is {steps}; it must be between 1 and {config.num_timesteps}")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}; it must be between 0 and {2**32 - 1}")
    if not (gamma >= 0 and math.isfinite(gamma)):
        raise ConfigError(f"gamma is {gamma}; it must be zero or a positive number")
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta is {eta}; it must be between 0 and 1")
    return DecodeSettings(steps, seed, gamma, eta)
