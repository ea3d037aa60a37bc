"""The compressor: image → latents y and z, and back from ŷ to the maps that guide the U-Net.

Everything here runs at float32 and `highest` matrix precision on every device: the rate, and which way a symbol
rounds, must not depend on the accelerator's shortcuts.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.factorized import FactorizedPrior
from cdc_jax.models.blocks import Conv, ResnetBlock, TransposedConv, downsample, leaky_relu, pairs, upsample
from cdc_jax.models.config import ModelConfig

SCALE_MIN = 0.1  # lower bound of σ


class Encoder(nnx.Module):
    """image [b, h, w, 3] in [−1, 1] → y [b, h/16, w/16, 4d]."""

    def __init__(self, width: int):
        channels = (3, width, 2 * width, 3 * width, 4 * width)
        self.blocks = nnx.List(
            [ResnetBlock(i, o, kernel=7 if level == 0 else 3) for level, (i, o) in enumerate(pairs(channels))]
        )
        self.downs = nnx.List([downsample(o) for o in channels[1:]])

    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h/16 w/16 c"]:
        x = image
        for block, down in zip(self.blocks, self.downs, strict=True):
            x = down(block(x))
        return x


class HyperEncoder(nnx.Module):
    """y [b, h/16, w/16, 4d] → z [b, h/64, w/64, 4d]."""

    def __init__(self, channels: int):
        self.convs = nnx.List(
            [
                Conv(channels, channels, 3),
                Conv(channels, channels, 5, stride=2),
                Conv(channels, channels, 5, stride=2),
            ]
        )

    def __call__(self, y: Float[Array, "b h w c"]) -> Float[Array, "b h/4 w/4 c"]:
        first, second, third = self.convs
        return third(leaky_relu(second(leaky_relu(first(y)))))


class HyperDecoder(nnx.Module):
    """ẑ → (μ, σ) of y, σ clamped below at 0.1. Files are coded with its twin, `entropy.integer_hyper_decoder`."""

    def __init__(self, channels: int):
        self.convs = nnx.List(
            [
                TransposedConv(channels, channels, 5),
                TransposedConv(channels, channels, 5),
                Conv(channels, 2 * channels, 3),
            ]
        )

    def __call__(self, z_hat: Float[Array, "b h w c"]) -> tuple[Float[Array, "b 4h 4w c"], Float[Array, "b 4h 4w c"]]:
        first, second, third = self.convs
        mean, scale = jnp.split(third(leaky_relu(second(leaky_relu(first(z_hat))))), 2, axis=-1)
        return mean, jnp.maximum(scale, SCALE_MIN)


class ContextDecoder(nnx.Module):
    """ŷ → four maps at 1, 1/2, 1/4, 1/8 of the picture's size, full resolution first."""

    def __init__(self, config: ModelConfig):
        d = config.width
        block_channels = (4 * d, 3 * d, 2 * d, d)  # the last block keeps its width; its Up changes it
        out_channels = tuple(reversed(config.context_channels))
        self.blocks = nnx.List([ResnetBlock(i, o) for i, o in pairs(block_channels)] + [ResnetBlock(d, d)])
        self.ups = nnx.List([upsample(i, o) for i, o in zip((*block_channels[1:], d), out_channels, strict=True)])

    def __call__(self, y_hat: Float[Array, "b h/16 w/16 c"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        x, maps = y_hat, []
        for block, up in zip(self.blocks, self.ups, strict=True):
            x = up(block(x))
            maps.append(x)
        return tuple(reversed(maps))


class Compressor(nnx.Module):
    """Encoder, hyperprior and context decoder."""

    def __init__(self, config: ModelConfig):
        self.encoder = Encoder(config.width)
        self.hyper_encoder = HyperEncoder(config.latent_channels)
        self.hyper_decoder = HyperDecoder(config.latent_channels)
        self.prior = FactorizedPrior(config.latent_channels)
        self.context_decoder = ContextDecoder(config)

    def encode(
        self, image: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b h/16 w/16 c"], Float[Array, "b h/64 w/64 c"]]:
        """image in [−1, 1], h and w multiples of 64 → latents (y, z) before quantization."""
        y = self.encoder(image)
        return y, self.hyper_encoder(y)
