"""The settings that define a model's architecture and decoding defaults. Does not import JAX.

Two families of models share the code. The paper's network is the default; all its sizes follow from `width`. The
compact model (`configs/compact.py`) folds pixels into channels at its input and output, codes the coefficients of a
transform, and is a variable-rate model: one set of weights for all qualities.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from cdc_jax.errors import ConfigError

PREDICTIONS = ("x", "epsilon", "v")
STRIDE = 64  # pixels between neighboring positions of z; images are padded to a multiple of it
LATENT_STRIDE = 16  # pixels between neighboring positions of y
MAX_QUALITY = 100
_MAX_CHANNELS = 1 << 14
_MAX_ANCHORS = 64  # the limit of coding.npz

_INTEGERS = ("width", "fold", "latent_channels", "hyper_channels", "hyper_width", "rate_anchors")
_NUMBERS = ("decode_gamma", "beta_max", "beta_min")
_FLAGS = ("transform", "checkerboard")


def padded_sides(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels, rounded up to multiples of 64."""
    return height + -height % STRIDE, width + -width % STRIDE


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture and decoding defaults of a model. Sizes of 0 or () follow from `width`, as in the paper.

    Attributes:
      prediction: what the U-Net predicts: the clean image ("x", the paper's X-parameterization), the noise
        ("epsilon"), or the velocity ("v", with the architecture of x).
      width: d, the number of channels at the first level; 64 in the released weights.
      decode_steps: default number of DDIM steps; None: that of the released implementation (65; epsilon: 200).
      decode_gamma: default scale γ of the noise that decoding starts from.
      fold: side of the pixel squares that the encoder and U-Net fold into channels (1, 2, 4 or 8); 1 in the paper.
      encoder_channels: channels per encoder level, the first at 1/fold of the image's resolution; (): d·(1, 2, 3, 4).
      unet_channels: channels per U-Net level, the first at 1/fold too; (): d·(1, 2, 3, 4, 5, 6).
      latent_channels: channels of y; 0: 4d.
      hyper_channels: channels of z; 0: 4d.
      hyper_width: hidden channels of the hyperprior; 0: 4d.
      transform: whether to add a linear transform of 16×16 patches to the encoder's output, quantize y with gains, and
        let the U-Net correct the inverse transform of ŷ (see `models.transform`).
      checkerboard: whether half of y's positions are coded given the other half (He et al., CVPR 2021); needs
        `transform`.
      rate_anchors: number of qualities, evenly spaced from 0 to 100, with trained gains; 1: a single-rate model.
      beta_max, beta_min: the rate weight β that qualities 0 and 100 are trained with; log β is linear in between.

    Raises:
      ConfigError: a value is invalid.
    """

    prediction: str = "x"
    width: int = 64
    decode_steps: int | None = None
    decode_gamma: float = 0.8
    fold: int = 1
    encoder_channels: tuple[int, ...] = ()
    unet_channels: tuple[int, ...] = ()
    latent_channels: int = 0
    hyper_channels: int = 0
    hyper_width: int = 0
    transform: bool = False
    checkerboard: bool = False
    rate_anchors: int = 1
    beta_max: float = 1.0
    beta_min: float = 1.0

    def __post_init__(self):
        self._check_types()
        if self.prediction not in PREDICTIONS:
            raise ConfigError(f"prediction is {self.prediction!r}; it must be one of {', '.join(PREDICTIONS)}.")
        if not 1 <= self.width <= _MAX_CHANNELS:
            raise ConfigError(f"width is {self.width}; it must be between 1 and {_MAX_CHANNELS}.")
        self._fill_in_sizes()
        if self.decode_steps is None:
            self._set("decode_steps", 200 if self.prediction == "epsilon" else 65)
        if not 1 <= self.decode_steps <= self.num_timesteps:
            raise ConfigError(f"decode_steps is {self.decode_steps}; it must be between 1 and {self.num_timesteps}.")
        if not 0 <= self.decode_gamma < float("inf"):
            raise ConfigError(f"decode_gamma is {self.decode_gamma}; it must be zero or a positive number.")
        if not 0 < self.beta_min <= self.beta_max < float("inf"):
            raise ConfigError(
                f"beta_min is {self.beta_min} and beta_max is {self.beta_max}; they must be 0 < beta_min ≤ beta_max."
            )
        if not self.transform and (self.rate_anchors > 1 or self.checkerboard):
            raise ConfigError("rate_anchors above 1 and checkerboard need transform=True.")

    def _check_types(self) -> None:
        """Raises ConfigError for a value of another type: `True` is not 1, and "false" is not False."""
        integers = (*_INTEGERS, *(() if self.decode_steps is None else ("decode_steps",)))
        for names, fits, kind in (
            (integers, _is_int, "an integer below 2³¹"),
            (_NUMBERS, _is_number, "a number"),
            (_FLAGS, lambda value: isinstance(value, bool), "true or false"),
            (("encoder_channels", "unet_channels"), lambda value: isinstance(value, list | tuple), "integers"),
        ):
            for name in names:
                if not fits(getattr(self, name)):
                    raise ConfigError(f"{name} is {ascii(getattr(self, name))[:40]}; it must be {kind}.")

    def _fill_in_sizes(self) -> None:
        if self.fold not in (1, 2, 4, 8):
            raise ConfigError(f"fold is {self.fold!r}; it must be 1, 2, 4 or 8.")
        for name, multipliers in (("encoder_channels", (1, 2, 3, 4)), ("unet_channels", (1, 2, 3, 4, 5, 6))):
            channels = getattr(self, name) or [self.width * m for m in multipliers]
            self._set(name, tuple(channels))
        for name in ("latent_channels", "hyper_channels", "hyper_width"):
            self._set(name, getattr(self, name) or 4 * self.width)
        sizes = (*self.encoder_channels, *self.unet_channels, self.latent_channels, self.hyper_channels)
        if not all(_is_int(size) and 0 < size <= _MAX_CHANNELS for size in (*sizes, self.hyper_width)):
            raise ConfigError(f"All numbers of channels must be integers between 1 and {_MAX_CHANNELS}.")
        if not 1 <= self.rate_anchors <= _MAX_ANCHORS:
            raise ConfigError(f"rate_anchors is {self.rate_anchors}; it must be between 1 and {_MAX_ANCHORS}.")
        if len(self.encoder_channels) - self.downsamplings not in (0, 1):
            raise ConfigError(
                f"encoder_channels has {len(self.encoder_channels)} levels; with fold={self.fold} it must have "
                f"{self.downsamplings} or {self.downsamplings + 1}."
            )
        least, most = self.downsamplings + (1 if self.compact else 0), int(math.log2(STRIDE // self.fold)) + 1
        if not least <= len(self.unet_channels) <= most:
            raise ConfigError(
                f"unet_channels has {len(self.unet_channels)} levels; with fold={self.fold} it must have {least} to "
                f"{most}."
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def num_timesteps(self) -> int:
        """T, the number of noise levels in the schedule."""
        return 20000 if self.prediction == "epsilon" else 8193

    @property
    def downsamplings(self) -> int:
        """Number of halvings of the resolution from the folded image to y."""
        return int(math.log2(LATENT_STRIDE // self.fold))

    @property
    def folded_channels(self) -> int:
        """Channels of the folded image."""
        return 3 * self.fold**2

    @property
    def compact(self) -> bool:
        """Whether the model has the compact layout: see `compressor.Encoder`, `compressor.ContextDecoder`, `unet`."""
        return self.fold > 1

    @property
    def context_channels(self) -> tuple[int, ...]:
        """Channels of the context maps, in the order of the U-Net's levels.

        In the paper's layout, the maps are at 1, 1/2, 1/4 and 1/8 of the image's resolution. In the compact layout,
        they range from 1/fold to y's resolution, 1/16.
        """
        if self.compact:
            return self.unet_channels[: self.downsamplings + 1]
        d = self.width
        return (3 if self.prediction == "epsilon" else d, d, 2 * d, 3 * d)

    @property
    def variable_rate(self) -> bool:
        """Whether one set of weights codes at every quality from 0 to 100."""
        return self.rate_anchors > 1

    @property
    def format_version(self) -> int:
        """Format version of the files that the model writes."""
        return 2 if self.transform else 1

    def beta(self, quality: float) -> float:
        """The rate weight β that a quality from 0 to 100 is trained with."""
        return self.beta_max * (self.beta_min / self.beta_max) ** (quality / MAX_QUALITY)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`. Raises ConfigError for an unknown key or an invalid value."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"Unknown model setting {unknown[0]!r}; known are {', '.join(sorted(known))}.")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)
