"""What defines a model: the few numbers from which every shape and default follows. No JAX import."""

from __future__ import annotations

import dataclasses
from typing import Any

from cdc_jax.errors import ConfigError

PREDICTIONS = ("x", "epsilon", "v")
STRIDE = 64  # pixels per cell of z; every picture is padded to a multiple
LATENT_STRIDE = 16  # pixels per cell of y


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture and decoding defaults of a model.

    Attributes:
      prediction: what the U-Net predicts: the clean image ("x", the paper's X-parameterization), the noise
        ("epsilon"), or the velocity ("v", built like x).
      width: d, the number of channels at full resolution; 64 in the released weights.
      decode_steps: DDIM steps when the caller gives none; None takes the released program's (65; epsilon: 200).
      decode_gamma: scale of the starting noise when the caller gives none.

    Raises:
      ConfigError: a value is impossible.
    """

    prediction: str = "x"
    width: int = 64
    decode_steps: int | None = None
    decode_gamma: float = 0.8

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise ConfigError(f"prediction is {self.prediction!r}; it must be one of {', '.join(PREDICTIONS)}")
        if not isinstance(self.width, int) or self.width < 1:
            raise ConfigError(f"width is {self.width!r}; it must be a positive integer")
        if self.decode_steps is None:
            object.__setattr__(self, "decode_steps", 200 if self.prediction == "epsilon" else 65)
        if not 1 <= self.decode_steps <= self.num_timesteps:
            raise ConfigError(f"decode_steps is {self.decode_steps}; it must be between 1 and {self.num_timesteps}")
        if not 0 <= self.decode_gamma < float("inf"):
            raise ConfigError(f"decode_gamma is {self.decode_gamma}; it must be zero or a positive number")

    @property
    def latent_channels(self) -> int:
        """Channels of y and of z."""
        return 4 * self.width

    @property
    def num_timesteps(self) -> int:
        """T, the length of the noise schedule."""
        return 20000 if self.prediction == "epsilon" else 8193

    @property
    def context_channels(self) -> tuple[int, int, int, int]:
        """Channels of the context maps at 1, 1/2, 1/4, 1/8 of the picture's size."""
        d = self.width
        return (3 if self.prediction == "epsilon" else d, d, 2 * d, 3 * d)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The reverse of `to_dict`. Raises ConfigError on an unknown key."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown model setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
        return cls(**values)
