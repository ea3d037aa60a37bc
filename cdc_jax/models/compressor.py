"""The compressor: image → latents y and z, and back from ŷ to the maps that guide the U-Net.

Everything here runs at float32 and `highest` matrix precision on every device: the rate, and which way a symbol
rounds, must not depend on the accelerator's shortcuts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.factorized import FactorizedPrior
from cdc_jax.entropy.integer_checkerboard import anchor_mask
from cdc_jax.entropy.latents import LOG2_SCALE_SHIFT
from cdc_jax.entropy.quantize import lower_bound
from cdc_jax.models.blocks import (
    ConditionEmbedding,
    Conv,
    Linear,
    ResnetBlock,
    TransposedConv,
    downsample,
    leaky_relu,
    pairs,
    upsample,
)
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.transform import Transform, fold

SCALE_MIN = 0.1  # lower bound of σ, in units of y's quantization step
LOG2_SCALE_UNIT = 2.0**LOG2_SCALE_SHIFT  # log₂ σ per unit of the hyper decoder's output, so that few steps move it far


class Encoder(nnx.Module):
    """image [b, h, w, 3] in [−1, 1] → [b, h/16, w/16, c]: a residual block per level, halvings between them.

    The paper's four levels are each followed by a halving, and the last one's output is y. The compact layout has
    another level at y's resolution, and an output layer.
    """

    def __init__(self, config: ModelConfig):
        channels = (config.folded_channels, *config.encoder_channels)
        first_kernel = 3 if config.compact else 7
        self.blocks = nnx.List(
            [ResnetBlock(i, o, kernel=3 if level else first_kernel) for level, (i, o) in enumerate(pairs(channels))]
        )
        self.downs = nnx.List([downsample(o) for o in config.encoder_channels[: config.downsamplings]])
        deeper = len(config.encoder_channels) > config.downsamplings
        self.out = Conv(config.encoder_channels[-1], config.latent_channels, 3) if deeper else None
        self.fold = config.fold

    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h/16 w/16 c"]:
        x = fold(image, self.fold)
        for level, block in enumerate(self.blocks):
            x = block(x)
            if level < len(self.downs):
                x = self.downs[level](x)
        return x if self.out is None else self.out(x)


class HyperEncoder(nnx.Module):
    """Features of y [b, h/16, w/16, i] → z [b, h/64, w/64, o]."""

    def __init__(self, in_channels: int, width: int, out_channels: int):
        self.convs = nnx.List(
            [
                Conv(in_channels, width, 3),
                Conv(width, width, 5, stride=2),
                Conv(width, out_channels, 5, stride=2),
            ]
        )

    def __call__(self, y: Float[Array, "b h w i"]) -> Float[Array, "b h/4 w/4 o"]:
        first, second, third = self.convs
        return third(leaky_relu(second(leaky_relu(first(y)))))


class HyperDecoder(nnx.Module):
    """ẑ → two numbers for each of y's coefficients. Files are coded with its integer twin, `IntegerHyperDecoder`."""

    def __init__(self, in_channels: int, width: int, latent_channels: int):
        self.convs = nnx.List(
            [
                TransposedConv(in_channels, width, 5),
                TransposedConv(width, width, 5),
                Conv(width, 2 * latent_channels, 3),
            ]
        )

    def features(self, z_hat: Float[Array, "b h w i"]) -> Float[Array, "b 4*h 4*w width"]:
        """What the last layer sees."""
        first, second, _ = self.convs
        return leaky_relu(second(leaky_relu(first(z_hat))))

    def __call__(
        self, z_hat: Float[Array, "b h w i"]
    ) -> tuple[Float[Array, "b 4*h 4*w c"], Float[Array, "b 4*h 4*w c"]]:
        """(μ, σ), σ clamped below at 0.1: the paper's."""
        mean, scale = jnp.split(self.convs[2](self.features(z_hat)), 2, axis=-1)
        return mean, jnp.maximum(scale, SCALE_MIN)


class Checkerboard(nnx.Module):
    """What half of y's positions tell about the other half (He et al., CVPR 2021): a correction of the hyper decoder.

    It sees the four nearest anchors: ŷ, from which means follow, and the symbols' magnitudes, from which scales do; the
    hyper decoder's features; and the quality, since a symbol of zero means more the finer the quantization.
    """

    def __init__(self, width: int, latent_channels: int):
        self.anchors = Conv(2 * latent_channels, width, 3)
        self.features = Conv(width, width, 1)
        self.quality = Linear(1, width)
        self.out = Conv(width, 2 * latent_channels, 1)

    def __call__(
        self,
        features: Float[Array, "b h w width"],
        anchors: Float[Array, "b h w c"],
        symbols: Float[Array, "b h w c"],
        quality: Float[Array, " b"],
    ) -> Float[Array, "b h w 2*c"]:
        """The correction; `anchors` (ŷ) and `symbols` are zero but at anchors."""
        inputs = jnp.concatenate([anchors, log2_magnitude(symbols)], axis=-1)
        quality = self.quality(quality[:, None])[:, None, None, :]
        return self.out(leaky_relu(self.anchors(inputs) + self.features(features) + quality))


def log2_magnitude(symbols: Float[Array, "..."]) -> Float[Array, "..."]:
    """log₂(1 + |s|), linear between powers of two, as the integer network computes it."""
    magnitude = 1 + jnp.abs(symbols)
    exponent = jnp.floor(jnp.log2(magnitude))
    power = jnp.exp2(exponent)
    return exponent + (magnitude - power) / power


class Context(NamedTuple):
    """What the U-Net is given of ŷ.

    Attributes:
      maps: full resolution first in the paper's layout; at 1/fold first in the compact one.
      preview: Tᵀ(ŷ), None without the transform.
    """

    maps: tuple[Float[Array, "b _ _ _"], ...]
    preview: Float[Array, "b h w 3"] | None


class ContextDecoder(nnx.Module):
    """ŷ → the maps that guide the U-Net: residual blocks with doublings after them.

    The paper's layout keeps what follows each doubling; the compact one also what comes before the first.
    """

    def __init__(self, config: ModelConfig):
        self.keeps_first = config.compact
        rate = {"time_features": config.width} if config.variable_rate else {}
        if config.compact:
            channels = tuple(reversed(config.context_channels))
            blocks = [(config.latent_channels, channels[0]), *((c, c) for c in channels[1:-1])]
            ups = pairs(channels)
        else:
            d = config.width
            widths = (config.latent_channels, 3 * d, 2 * d, d, d)  # the last block keeps its width; its Up changes it
            blocks, ups = pairs(widths), list(zip(widths[1:], reversed(config.context_channels), strict=True))
        self.blocks = nnx.List([ResnetBlock(i, o, **rate) for i, o in blocks])
        self.ups = nnx.List([upsample(i, o) for i, o in ups])
        self.rate_embedding = ConditionEmbedding(1, config.width) if config.variable_rate else None

    def __call__(
        self, y_hat: Float[Array, "b h/16 w/16 c"], quality: Float[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        rate = None if self.rate_embedding is None else self.rate_embedding(quality[:, None])
        x, maps = y_hat, []
        for level, (block, up) in enumerate(zip(self.blocks, self.ups, strict=True)):
            x = block(x, time=rate)
            if level == 0 and self.keeps_first:
                maps.append(x)
            x = up(x)
            maps.append(x)
        return tuple(reversed(maps))


class Compressor(nnx.Module):
    """Encoder, hyperprior and context decoder; with the transform, T and the gains beside them."""

    def __init__(self, config: ModelConfig):
        latent, width, hyper = config.latent_channels, config.hyper_width, config.hyper_channels
        self.encoder = Encoder(config)
        self.hyper_encoder = HyperEncoder(2 * latent if config.transform else latent, width, hyper)
        self.hyper_decoder = HyperDecoder(hyper, width, latent)
        self.checkerboard = Checkerboard(width, latent) if config.checkerboard else None
        self.prior = FactorizedPrior(hyper)
        self.context_decoder = ContextDecoder(config)
        self.transform = Transform(config) if config.transform else None

    def encode_y(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h/16 w/16 c"]:
        """y of an image in [−1, 1], before quantization; h and w multiples of 16."""
        y = self.encoder(image)
        return y if self.transform is None else y + self.transform.analyze(image)

    def encode_z(self, y: Float[Array, "b h w c"]) -> Float[Array, "b h/4 w/4 _"]:
        """z of y, before quantization. It does not depend on the quality.

        With the transform, the hyper encoder sees the logarithm of |y| with and without its sign, in steps of the
        middle anchor: the coefficients span orders of magnitude.
        """
        if self.transform is None:
            return self.hyper_encoder(y)
        anchors = self.transform.anchors()
        steps = y * jnp.exp2(jax.lax.stop_gradient(anchors[len(anchors) // 2]))
        magnitude = jnp.log1p(jnp.abs(steps))
        return self.hyper_encoder(jnp.concatenate([jnp.sign(steps) * magnitude, magnitude], axis=-1))

    def encode(
        self, image: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b h/16 w/16 c"], Float[Array, "b h/64 w/64 _"]]:
        """image in [−1, 1], h and w multiples of 64 → latents (y, z) before quantization."""
        y = self.encode_y(image)
        return y, self.encode_z(y)

    def predict_latents(
        self,
        z_hat: Float[Array, "b h w _"],
        log2_gain: Float[Array, "b 1 1 c"],
        quality: Float[Array, " b"],
        quantize: Callable[[Array], Array],
    ) -> tuple[Float[Array, "b 4*h 4*w c"], Float[Array, "b 4*h 4*w c"]]:
        """(μ, σ) of y with the transform: μ in y's units, σ in quantization steps, clamped below at 0.1.

        Args:
          z_hat: quantized z.
          log2_gain: log₂ g.
          quality: from 0 to 1.
          quantize: (μ) → ŷ; called once, with the means that the anchors of the checkerboard are coded with.
        """
        features = self.hyper_decoder.features(z_hat)
        output = self.hyper_decoder.convs[2](features)
        if self.checkerboard is not None:
            mask = anchor_mask(*output.shape[1:3])[..., None].astype(np.float32)
            mean = jnp.split(output, 2, axis=-1)[0]
            anchors = quantize(mean)
            symbols = jax.lax.stop_gradient(jnp.round((anchors - mean) * jnp.exp2(log2_gain)))
            correction = self.checkerboard(features, anchors * mask, symbols * mask, quality)
            output = output + (1 - mask) * correction
        mean, scale = jnp.split(output, 2, axis=-1)
        log2_scale = lower_bound(LOG2_SCALE_UNIT * scale + log2_gain, jnp.float32(math.log2(SCALE_MIN)))
        return mean, jnp.exp2(jnp.minimum(log2_scale, 30.0))

    def context(self, y_hat: Float[Array, "b h w c"], quality: Float[Array, " b"] | None = None) -> Context:
        """What the U-Net is given; quality from 0 to 1, None in a model of one rate."""
        preview = None if self.transform is None else self.transform.synthesize(y_hat)
        return Context(self.context_decoder(y_hat, quality), preview)
