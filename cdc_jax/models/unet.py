"""The denoising U-Net: (x_n, time, context maps) → prediction (clean image, noise or velocity).

Six levels of d·(1, 2, 3, 4, 5, 6) channels, each at half the resolution of the one before; the four context maps
are concatenated to the input of levels 0 to 3. Input sizes are multiples of 64.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.quantize import at_least_float32
from cdc_jax.models.blocks import LinearAttention, ResnetBlock, channel_norm, conv, downsample, linear, pairs, upsample
from cdc_jax.models.config import ModelConfig

MULTIPLIERS = (1, 2, 3, 4, 5, 6)


class TimeEmbedding(nnx.Module):
    """One scalar in [0, 1) → d features: Linear 1→4d, exact GELU, Linear 4d→d."""

    def __init__(self, width: int, *, rngs: nnx.Rngs, **options):
        self.first = linear(1, 4 * width, rngs=rngs, **options)
        self.second = linear(4 * width, width, rngs=rngs, **options)

    def __call__(self, time: Float[Array, " b"]) -> Float[Array, "b d"]:
        return self.second(jax.nn.gelu(self.first(time[:, None]), approximate=False))


class Level(nnx.Module):
    """Two residual blocks and attention, then a change of resolution where there is one."""

    def __init__(self, in_channels: int, out_channels: int, resize, *, kernel: int = 3, width: int, rngs, **options):
        options = {"rngs": rngs, **options}
        self.block1 = ResnetBlock(in_channels, out_channels, kernel=kernel, time_features=width, **options)
        self.block2 = ResnetBlock(out_channels, out_channels, time_features=width, **options)
        self.attention = LinearAttention(out_channels, **options)
        self.resize = None if resize is None else resize(out_channels, **options)

    def __call__(self, x: Float[Array, "b h w i"], time: Float[Array, "b d"]) -> Float[Array, "b h w o"]:
        """Without the resizing, whose input the way up needs."""
        return self.attention(self.block2(self.block1(x, time), time))


class UNet(nnx.Module):
    """The denoiser. `dtype` is the compute type (weights stay float32), `precision` that of the products."""

    def __init__(self, config: ModelConfig, *, dtype=None, precision: str | None = "highest", rngs: nnx.Rngs):
        d = config.width
        options = {"dtype": dtype, "precision": precision, "rngs": rngs}
        widths = tuple(d * m for m in MULTIPLIERS)
        context = (*config.context_channels, 0, 0)
        inputs = (3, *widths[:-1])
        last = len(widths) - 1
        self.time_embedding = TimeEmbedding(d, **options)
        self.downs = nnx.List(
            [
                Level(
                    inputs[i] + context[i],
                    widths[i],
                    None if i == last else downsample,
                    kernel=7 if i == 0 else 3,
                    width=d,
                    **options,
                )
                for i in range(len(widths))
            ]
        )
        self.middle = nnx.List([ResnetBlock(widths[-1], widths[-1], time_features=d, **options) for _ in range(2)])
        self.middle_attention = LinearAttention(widths[-1], **options)
        self.ups = nnx.List(
            [Level(2 * deep, shallow, upsample, width=d, **options) for shallow, deep in reversed(pairs(widths))]
        )
        self.final_norm = channel_norm(d, dtype=dtype, rngs=rngs)
        self.final_conv = conv(d, 3, 7, **options)

    def __call__(
        self, x: Float[Array, "b h w 3"], time: Float[Array, " b"], context: tuple[Float[Array, "b _ _ _"], ...]
    ) -> Float[Array, "b h w 3"]:
        """Predicts from the noisy image.

        Args:
          x: noisy image x_n; h and w multiples of 32.
          time: time input in [0, 1), one per image.
          context: the context decoder's four maps, full resolution first.
        """
        time = self.time_embedding(time)
        kept = []
        for i, level in enumerate(self.downs):
            if i < len(context):
                x = jnp.concatenate([x, context[i].astype(x.dtype)], axis=-1)
            x = level(x, time)
            kept.append(x)
            if level.resize is not None:
                x = level.resize(x)
        first, second = self.middle
        x = second(self.middle_attention(first(x, time)), time)
        for level in self.ups:  # the level-0 map is never used
            x = jnp.concatenate([x, kept.pop()], axis=-1)
            x = level.resize(level(x, time))
        return at_least_float32(self.final_conv(self.final_norm(x)))
