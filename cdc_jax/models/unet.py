"""The denoising U-Net: (x_n, time, context maps) → prediction (clean image, noise or velocity).

Six levels of d·(1, 2, 3, 4, 5, 6) channels, each at half the resolution of the one before; the four context maps
are concatenated to the input of levels 0 to 3. Input sizes are multiples of 64. A sampler calls `prepare` and `embed`
once and the prepared U-Net at every step; training calls the module.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.models import precomputed as prepared
from cdc_jax.models.blocks import (
    ChannelNorm,
    Conv,
    Linear,
    LinearAttention,
    ResnetBlock,
    downsample,
    pairs,
    upsample,
)
from cdc_jax.models.config import ModelConfig

MULTIPLIERS = (1, 2, 3, 4, 5, 6)


class TimeEmbedding(nnx.Module):
    """One scalar in [0, 1) → d features: Linear 1→4d, exact GELU, Linear 4d→d."""

    def __init__(self, width: int, **options):
        self.first = Linear(1, 4 * width, **options)
        self.second = Linear(4 * width, width, **options)

    def __call__(self, time: Float[Array, " b"]) -> Float[Array, "b d"]:
        return self.second(jax.nn.gelu(self.first(time[:, None]), approximate=False))


class Level(nnx.Module):
    """Two residual blocks and attention, then a change of resolution where there is one."""

    def __init__(
        self, in_channels: int | Sequence[int], out_channels: int, resize, *, kernel: int = 3, width: int, **options
    ):
        self.block1 = ResnetBlock(in_channels, out_channels, kernel=kernel, time_features=width, **options)
        self.block2 = ResnetBlock(out_channels, out_channels, time_features=width, **options)
        self.attention = LinearAttention(out_channels, **options)
        self.resize = None if resize is None else resize(out_channels, **options)

    def prepare(self, known: Float[Array, "b h w _"] | None = None) -> prepared.Level:
        """Ready to run on the maps that are not `known`."""
        resize = None if self.resize is None else self.resize.prepare()
        return prepared.Level(self.block1.prepare(known), self.block2.prepare(), self.attention.prepare(), resize)


class UNet(nnx.Module):
    """The denoiser. `dtype` is the type of its products (all else is float32), `precision` how exact they are."""

    def __init__(self, config: ModelConfig, *, dtype=None, precision: str | None = "highest"):
        d = config.width
        options = {"dtype": dtype, "precision": precision}
        widths = tuple(d * m for m in MULTIPLIERS)
        inputs = (3, *widths[:-1])
        contexts = ((channels,) for channels in config.context_channels)
        last = len(widths) - 1
        self.time_embedding = TimeEmbedding(d, **options)
        self.downs = nnx.List(
            [
                Level(
                    (inputs[i], *next(contexts, ())),
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
            [Level((deep, deep), shallow, upsample, width=d, **options) for shallow, deep in reversed(pairs(widths))]
        )
        self.final_norm = ChannelNorm(d)
        self.final_conv = Conv(d, 3, 7, **options)

    def embed(self, time: Float[Array, " n"]) -> tuple[Float[Array, "n _"], ...]:
        """What each residual block adds at these time inputs, in [0, 1), in the order of the blocks' use."""
        embedded = self.time_embedding(time)
        levels = [block for level in self.downs for block in (level.block1, level.block2)]
        ups = [block for level in self.ups for block in (level.block1, level.block2)]
        return tuple(block.embed(embedded) for block in (*levels, *self.middle, *ups))

    def prepare(self, context: tuple[Float[Array, "b _ _ _"], ...]) -> prepared.UNet:
        """The U-Net of these context maps, full resolution first: all that is the same at every step is done."""
        known = (*context, *[None] * (len(self.downs) - len(context)))
        first, second = self.middle
        return prepared.UNet(
            tuple(level.prepare(maps) for level, maps in zip(self.downs, known, strict=True)),
            (first.prepare(), self.middle_attention.prepare(), second.prepare()),
            tuple(level.prepare() for level in self.ups),
            self.final_norm.scale[...],
            self.final_norm.bias[...],
            self.final_conv.prepare(),
        )

    def __call__(
        self, x: Float[Array, "b h w 3"], time: Float[Array, " b"], context: tuple[Float[Array, "b _ _ _"], ...]
    ) -> Float[Array, "b h w 3"]:
        """Predicts from the noisy image.

        Args:
          x: noisy image x_n; h and w multiples of 32.
          time: time input in [0, 1), one per image.
          context: the context decoder's four maps, full resolution first.
        """
        return self.prepare(context)(x, self.embed(time))
