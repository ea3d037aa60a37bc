"""The denoising U-Net: (x_n, time, context maps) → prediction (clean image, noise or velocity).

The paper's U-Net has six levels of d·(1, 2, 3, 4, 5, 6) channels, each at half the resolution of the previous one. Four
context maps are concatenated to the inputs of levels 0 to 3. The compact layout works on folded pixels, has attention
only at its deepest level, and has one more level at the end of the upsampling path. With the transform, the preview is
concatenated to the first level's input, and a predicted image is a correction of it. A sampler calls `prepare` and
`embed` once, and the prepared U-Net at every step. `models.plain_unet` is a readable definition in one file.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.models import precomputed
from cdc_jax.models.blocks import (
    ChannelNorm,
    ConditionEmbedding,
    Conv,
    LinearAttention,
    ResnetBlock,
    downsample,
    pairs,
    upsample,
)
from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.transform import fold


class Level(nnx.Module):
    """Two residual blocks, optional attention, and an optional change of resolution.

    Args:
      in_channels: channels of the input, or of each of the maps that it is concatenated from.
      out_channels: channels of the output.
      resize: `downsample`, `upsample` or None.
      kernel: side of the first convolution's kernel.
      width: number of features of the embedded time.
      attention: whether the level has attention.
      **options: dtype and precision of all products.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        resize,
        *,
        kernel: int = 3,
        width: int,
        attention: bool = True,
        **options,
    ):
        self.block1 = ResnetBlock(in_channels, out_channels, kernel=kernel, time_features=width, **options)
        self.block2 = ResnetBlock(out_channels, out_channels, time_features=width, **options)
        self.attention = LinearAttention(out_channels, **options) if attention else None
        self.resize = None if resize is None else resize(out_channels, **options)

    def prepare(self, known: Float[Array, "b h w _"] | None = None) -> precomputed.Level:
        """The level in prepared form; `known` as in `Conv.prepare`."""
        attention = None if self.attention is None else self.attention.prepare()
        resize = None if self.resize is None else self.resize.prepare()
        return precomputed.Level(self.block1.prepare(known), self.block2.prepare(), attention, resize)


class UNet(nnx.Module):
    """The denoiser.

    Args:
      config: the architecture.
      dtype: dtype of the products; None: that of the weights. Everything else is float32.
      precision: precision of the products, as in `jax.lax`.
    """

    def __init__(self, config: ModelConfig, *, dtype=None, precision: str | None = "highest"):
        d, widths = config.width, config.unet_channels
        options = {"dtype": dtype, "precision": precision}
        level = {"width": d, **options}
        kernel = 3 if config.compact else 7
        last = len(widths) - 1
        contexts = list(config.context_channels)
        if config.transform:
            contexts[0] += config.folded_channels
        inputs = (config.folded_channels, *widths[:-1])
        self.fold, self.residual = config.fold, config.transform and config.prediction == "x"
        self.time_embedding = ConditionEmbedding(2 if config.variable_rate else 1, d, **options)
        self.downs = nnx.List(
            [
                Level(
                    (inputs[i], *contexts[i : i + 1]),
                    widths[i],
                    None if i == last else downsample,
                    kernel=3 if i else kernel,
                    attention=i == last or not config.compact,
                    **level,
                )
                for i in range(len(widths))
            ]
        )
        self.middle = nnx.List([ResnetBlock(widths[-1], widths[-1], time_features=d, **options) for _ in range(2)])
        self.middle_attention = LinearAttention(widths[-1], **options)
        self.ups = nnx.List(
            [
                Level((deep, deep), shallow, upsample, attention=not config.compact, **level)
                for shallow, deep in reversed(pairs(widths))
            ]
        )
        if config.compact:
            self.ups.append(Level((widths[0], widths[0]), widths[0], None, attention=False, **level))
        self.final_norm = ChannelNorm(widths[0])
        self.final_conv = Conv(widths[0], config.folded_channels, kernel, **options)

    def embed(
        self, time: Float[Array, "..."], quality: Float[Array, "..."] | None = None
    ) -> tuple[Float[Array, "... _"], ...]:
        """The features that each residual block adds between its layers, in the order in which the blocks are used.

        Args:
          time: time inputs in [0, 1).
          quality: from 0 to 1, broadcast against `time`; None in a single-rate model.
        """
        conditions = [time] if quality is None else jnp.broadcast_arrays(time, quality)
        embedded = self.time_embedding(jnp.stack(conditions, axis=-1))
        levels = [block for level in self.downs for block in (level.block1, level.block2)]
        ups = [block for level in self.ups for block in (level.block1, level.block2)]
        return tuple(block.embed(embedded) for block in (*levels, *self.middle, *ups))

    def prepare(self, context: Context) -> precomputed.UNet:
        """The U-Net for these context maps. Everything that is the same at every step is precomputed."""
        maps = list(context.maps)
        if context.preview is not None:
            maps[0] = jnp.concatenate([maps[0], fold(context.preview, self.fold)], axis=-1)
        known = (*maps, *[None] * (len(self.downs) - len(maps)))
        first, second = self.middle
        return precomputed.UNet(
            tuple(level.prepare(maps) for level, maps in zip(self.downs, known, strict=True)),
            (first.prepare(), self.middle_attention.prepare(), second.prepare()),
            tuple(level.prepare() for level in self.ups),
            self.final_norm.scale[...],
            self.final_norm.bias[...],
            self.final_conv.prepare(),
            context.preview if self.residual else None,
            self.fold,
        )

    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        time: Float[Array, " b"],
        context: Context,
        quality: Float[Array, " b"] | None = None,
    ) -> Float[Array, "b h w 3"]:
        """Computes the prediction for the noisy image.

        Args:
          x: noisy image x_n, on the scale of [−1, 1]; h and w multiples of 32.
          time: time inputs in [0, 1), one per image.
          context: from `Compressor.context`.
          quality: from 0 to 1, one per image; None in a single-rate model.
        """
        return self.prepare(context)(x, self.embed(time, quality))
