"""The transform skip: a linear transform beside encoder and decoder, and the gains that its coefficients have.

    y = T(x) + E(x),   ŷ = round((y − μ)·g)/g + μ,   x̂ = Tᵀ(ŷ) + U-Net(…)

T maps 16×16 patches to coefficients in units of their standard deviations, Tᵀ maps them back; both start as the
Karhunen–Loève transform of the training images (`training.klt`), so that the model is a working transform codec at
step 0. The gains g grow with the quality: log₂ g is piecewise linear between anchors (Cui et al., "Asymmetric gained
deep image compression with continuous rate adaptation", CVPR 2021).
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
    """The reverse of `fold` (depth to space)."""
    if side == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, side, side, channels // side**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * side, width * side, channels // side**2)


class Transform(nnx.Module):
    """T, Tᵀ and the gains.

    Attributes:
      analysis: [768, c]; T is analysis / deviations, of patches folded row by row.
      synthesis: [c, 768], weights of its own; Tᵀ is deviations · synthesis.
      deviations: [c], the coefficients' standard deviations at the start; not trained. Kept apart, they leave both
        matrices nearly orthonormal, so that one learning rate suits all their rows.
      log2_gain: log₂ g at quality 0, [c].
      gain_steps: [anchors − 1, c]; softplus of an entry is the growth of log₂ g from one anchor to the next. None in a
        model of one rate.
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
        """Tᵀ(ŷ): the preview, nominally in [−1, 1], not clipped."""
        coefficients = y_hat * jax.lax.stop_gradient(self.deviations[...])
        return unfold(jnp.dot(coefficients, self.synthesis[...], precision="highest"), LATENT_STRIDE)

    def anchors(self) -> Float[Array, "anchors c"]:
        """log₂ g at every anchor, not decreasing along the first axis."""
        first = self.log2_gain[...][None]
        if self.gain_steps is None:
            return first
        return jnp.concatenate([first, first + jnp.cumsum(jax.nn.softplus(self.gain_steps[...]), axis=0)])

    def log2_gains(self, quality: Float[Array, " b"]) -> Float[Array, "b 1 1 c"]:
        """log₂ g at qualities from 0 to 1 (the user's quality over 100)."""
        anchors = self.anchors()
        last = anchors.shape[0] - 1
        place = jnp.clip(quality, 0, 1) * last
        lower = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, max(last - 1, 0))
        share = (place - lower)[:, None]
        gains = (1 - share) * anchors[lower] + share * anchors[jnp.minimum(lower + 1, last)]
        return gains[:, None, None, :]
