"""A linear transform in parallel with the encoder and decoder, and the gains with which y is quantized.

    y = T(x) + E(x),   ŷ = round((y − μ)·g)/g + μ,   x̂ = Tᵀ(ŷ) + U-Net(…)

T maps 16×16 patches to coefficients in units of their standard deviations, and Tᵀ maps them back. Both are initialized
as the Karhunen–Loève transform of the training images (`training.klt`), so the model is a working transform codec at
step 0. The gains g grow with the quality: log₂ g is piecewise linear between rate anchors (Cui et al., "Asymmetric
gained deep image compression with continuous rate adaptation", CVPR 2021).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.weight import Weight
from cdc_jax.models.config import LATENT_STRIDE, ModelConfig

PATCH_VALUES = 3 * LATENT_STRIDE**2


def fold(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b h/side w/side side*side*c"]:
    """Moves squares of side×side pixels into channels (space to depth)."""
    if side == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // side, width // side, side * side * channels)


def unfold(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b h*side w*side c/(side*side)"]:
    """The inverse of `fold` (depth to space)."""
    if side == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, side, side, channels // side**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * side, width * side, channels // side**2)


class Transform(nnx.Module):
    """T, Tᵀ and the gains.

    Attributes:
      analysis: [768, c]; T is analysis / deviations, applied to patches flattened row by row.
      synthesis: [c, 768], trained separately from `analysis`; Tᵀ is deviations · synthesis.
      deviations: [c], the coefficients' initial standard deviations; not trained. Because they are separate, both
        matrices are nearly orthonormal, so one learning rate suits all their rows.
      log2_gain: [c], log₂ g at quality 0.
      gain_steps: [anchors − 1, c]; softplus of an entry is the increase of log₂ g from one rate anchor to the next.
        None in a single-rate model.
    """

    def __init__(self, config: ModelConfig):
        channels = config.latent_channels
        self.analysis = Weight(PATCH_VALUES, channels)
        self.synthesis = Weight(channels, PATCH_VALUES)
        self.deviations = Weight(channels)
        self.log2_gain = Weight(channels)
        self.gain_steps = Weight(config.rate_anchors - 1, channels) if config.variable_rate else None

    def analyze(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h/16 w/16 c"]:
        """T(x) of an image in [−1, 1], h and w multiples of 16."""
        coefficients = jnp.dot(fold(image, LATENT_STRIDE), self.analysis[...], precision="highest")
        return coefficients / jax.lax.stop_gradient(self.deviations[...])

    def synthesize(self, y_hat: Float[Array, "b h w c"]) -> Float[Array, "b 16*h 16*w 3"]:
        """Tᵀ(ŷ), the preview of the image: nominally in [−1, 1], not clipped."""
        coefficients = y_hat * jax.lax.stop_gradient(self.deviations[...])
        return unfold(jnp.dot(coefficients, self.synthesis[...], precision="highest"), LATENT_STRIDE)

    def anchors(self) -> Float[Array, "anchors c"]:
        """log₂ g at every rate anchor, increasing with the quality."""
        first = self.log2_gain[...][None]
        if self.gain_steps is None:
            return first
        return jnp.concatenate([first, first + jnp.cumsum(jax.nn.softplus(self.gain_steps[...]), axis=0)])

    def log2_gains(self, quality: Float[Array, " b"]) -> Float[Array, "b 1 1 c"]:
        """log₂ g at qualities from 0 to 1: a user's quality divided by 100."""
        anchors = self.anchors()
        last = anchors.shape[0] - 1
        position = jnp.clip(quality, 0, 1) * last
        lower = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, max(last - 1, 0))
        fraction = (position - lower)[:, None]
        gains = (1 - fraction) * anchors[lower] + fraction * anchors[jnp.minimum(lower + 1, last)]
        return gains[:, None, None, :]
