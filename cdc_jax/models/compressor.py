"""The compressor: image → latents y and z, and ŷ → the context maps that condition the U-Net.

Everything here runs in float32 with matrix precision `highest` on every device: the rate, and the way that a symbol
rounds, must not depend on an accelerator's reduced precision.
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
LOG2_SCALE_UNIT = 2.0**LOG2_SCALE_SHIFT  # log₂ σ per unit of the hyper decoder's output: above 1, σ adapts in few steps


class Encoder(nnx.Module):
    """Image in [−1, 1] → latent at 1/16 of its resolution: residual blocks, each followed by a downsampling by 2.

    In the paper's layout, the output of the last downsampling is y. The compact layout has another block at y's
    resolution, and an output layer.
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
    """y, or features of it, at 1/16 of the image's resolution → z at 1/64."""

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
    """ẑ → two parameters of each of y's values. Files are coded with its integer twin, `IntegerHyperDecoder`."""

    def __init__(self, in_channels: int, width: int, latent_channels: int):
        self.convs = nnx.List(
            [
                TransposedConv(in_channels, width, 5),
                TransposedConv(width, width, 5),
                Conv(width, 2 * latent_channels, 3),
            ]
        )

    def features(self, z_hat: Float[Array, "b h w i"]) -> Float[Array, "b 4*h 4*w width"]:
        """The input of the last layer."""
        first, second, _ = self.convs
        return leaky_relu(second(leaky_relu(first(z_hat))))

    def __call__(
        self, z_hat: Float[Array, "b h w i"]
    ) -> tuple[Float[Array, "b 4*h 4*w c"], Float[Array, "b 4*h 4*w c"]]:
        """(μ, σ) as in the paper, with σ ≥ 0.1."""
        mean, scale = jnp.split(self.convs[2](self.features(z_hat)), 2, axis=-1)
        return mean, jnp.maximum(scale, SCALE_MIN)


class Checkerboard(nnx.Module):
    """Corrects the hyper decoder's output at half of y's positions, given the other half: the anchors.

    The checkerboard context model of He et al. (CVPR 2021). At each position, its inputs are the four nearest anchors
    (ŷ to predict means, the symbols' magnitudes to predict scales), the hyper decoder's features, and the quality: the
    finer the quantization, the more informative a zero symbol is.
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
        """The correction of the hyper decoder's output.

        Args:
          features: from `HyperDecoder.features`.
          anchors: ŷ at anchors, 0 elsewhere.
          symbols: quantized y at anchors, in quantization steps; 0 elsewhere.
          quality: from 0 to 1, one per image.
        """
        inputs = jnp.concatenate([anchors, log2_magnitude(symbols)], axis=-1)
        quality = self.quality(quality[:, None])[:, None, None, :]
        return self.out(leaky_relu(self.anchors(inputs) + self.features(features) + quality))


def log2_magnitude(symbols: Float[Array, "..."]) -> Float[Array, "..."]:
    """log₂(1 + |s|), interpolated linearly between powers of two, as the integer network computes it."""
    magnitude = 1 + jnp.abs(symbols)
    exponent = jnp.floor(jnp.log2(magnitude))
    power = jnp.exp2(exponent)
    return exponent + (magnitude - power) / power


class Context(NamedTuple):
    """The U-Net's conditioning, computed from ŷ.

    Attributes:
      maps: context maps, largest first; each has half the resolution of the previous one. The largest has the image's
        resolution in the paper's layout, 1/fold of it in the compact one.
      preview: Tᵀ(ŷ), nominally in [−1, 1]; None without the transform.
    """

    maps: tuple[Float[Array, "b _ _ _"], ...]
    preview: Float[Array, "b h w 3"] | None


class ContextDecoder(nnx.Module):
    """ŷ → context maps for the U-Net: residual blocks, each followed by an upsampling by 2.

    The maps are the outputs of the upsamplings, and in the compact layout also the input of the first one.
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
            widths = (config.latent_channels, 3 * d, 2 * d, d, d)  # only the last upsampling changes the width
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
    """Encoder, hyperprior and context decoder; optionally the linear transform with its gains."""

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
        """z of y, before quantization; the same at every quality.

        With the transform, the values of y span orders of magnitude. The hyper encoder's input is then log(1 + |y|),
        with and without y's sign, where y is in quantization steps of the middle rate anchor.
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
        """The latents (y, z) before quantization of an image in [−1, 1]; h and w multiples of 64."""
        y = self.encode_y(image)
        return y, self.encode_z(y)

    def predict_latents(
        self,
        z_hat: Float[Array, "b h w _"],
        log2_gain: Float[Array, "b 1 1 c"],
        quality: Float[Array, " b"],
        quantize: Callable[[Array], Array],
    ) -> tuple[Float[Array, "b 4*h 4*w c"], Float[Array, "b 4*h 4*w c"]]:
        """Predicts y's distribution in a model with the transform.

        Args:
          z_hat: quantized z.
          log2_gain: log₂ g.
          quality: from 0 to 1, one per image.
          quantize: returns ŷ for given means. With a checkerboard it is called once, with the means of the anchors.

        Returns:
          (μ, σ): μ in the units of y, σ in quantization steps, at least 0.1.
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
        """The U-Net's conditioning. Qualities are from 0 to 1; None in a single-rate model."""
        preview = None if self.transform is None else self.transform.synthesize(y_hat)
        return Context(self.context_decoder(y_hat, quality), preview)
