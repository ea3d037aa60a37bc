"""Noise schedules: ᾱ_n for n = 0 … T−1, the fraction of the image's power that is left after n noising steps.

ᾱ is computed in float64 and stored in float32. 1 − ᾱ is always computed from the stored float32, as in the code with
which the released weights were trained.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.models.config import ModelConfig

BETA_MAX = 0.999


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A noise schedule.

    Attributes:
      alpha_bar: ᾱ_n in float32, decreasing from nearly 1 (clean) to nearly 0 (noise).
    """

    alpha_bar: Float[np.ndarray, " T"]

    @property
    def num_timesteps(self) -> int:
        """T, the number of noise levels."""
        return len(self.alpha_bar)

    def ddim_timesteps(self, steps: int) -> Int[np.ndarray, " S"]:
        """The timesteps n_j = j·(T−1) // (S−1) of S steps, noisiest first; for S = 1, n = T−1.

        Raises:
          ValueError: `steps` is not between 1 and T.
        """
        last = self.num_timesteps - 1
        if not 1 <= steps <= self.num_timesteps:
            raise ValueError(f"steps is {steps}; it must be between 1 and {self.num_timesteps}.")
        if steps == 1:
            return np.array([last])
        return np.arange(steps)[::-1] * last // (steps - 1)


def cosine_schedule(num_timesteps: int) -> Schedule:
    """f_k = cos²((k/T + 0.008)/1.008 · π/2), β_n = 1 − f_{n+1}/f_n ≤ 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    fraction = np.linspace(0, num_timesteps + 1, num_timesteps + 1) / (num_timesteps + 1)
    f = np.cos((fraction + 0.008) / 1.008 * np.pi / 2) ** 2
    return _from_betas(np.clip(1 - f[1:] / f[:-1], 0, BETA_MAX))


def linear_schedule(num_timesteps: int) -> Schedule:
    """β_n is linear from 1e-4·1000/T to 0.02·1000/T: the schedule of Ho et al. (2020), stretched to T steps."""
    stretch = 1000 / num_timesteps
    return _from_betas(np.linspace(1e-4 * stretch, 0.02 * stretch, num_timesteps))


def schedule_for(config: ModelConfig) -> Schedule:
    """The schedule that a model is trained and sampled with: linear for "epsilon", else cosine."""
    build = linear_schedule if config.prediction == "epsilon" else cosine_schedule
    return build(config.num_timesteps)


def _from_betas(betas: Float[np.ndarray, " T"]) -> Schedule:
    return Schedule(np.cumprod(1 - betas).astype(np.float32))
