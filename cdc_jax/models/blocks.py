"""Building blocks of both networks: convolutions, channel norm, residual blocks, linear attention.

All tensors are NHWC, all kernels HWIO, and convolutions are cross-correlations. These modules hold the weights; their
`prepare` methods return the layers of `models.precomputed`, which do the computation. Initial weights come from
`models.initialization`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.quantize import at_least_float32
from cdc_jax.entropy.weight import Weight
from cdc_jax.models import precomputed
from cdc_jax.models.convolution import transposed_phases

LEAKY_SLOPE = 0.2


def leaky_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0.2·x)."""
    return jax.nn.leaky_relu(x, LEAKY_SLOPE)


class Conv(nnx.Module):
    """k×k convolution of the concatenation of one or more maps, zero-padded by k // 2.

    Maps of i channels in total, [b, h, w, i], become [b, h/stride, w/stride, o].

    Args:
      in_channels: i, or the number of channels of each map.
      out_channels: o.
      kernel: k, odd.
      stride: 1 or 2.
      use_bias: whether to add a bias.
      dtype: dtype of the products; None: that of the weights.
      precision: precision of the products, as in `jax.lax`.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        use_bias: bool = True,
        dtype: jnp.dtype | None = None,
        precision: str | None = "highest",
    ):
        self.in_channels = (in_channels,) if isinstance(in_channels, int) else tuple(in_channels)
        self.kernel = Weight(kernel, kernel, sum(self.in_channels), out_channels)
        self.bias = Weight(out_channels) if use_bias else None
        self.stride, self.dtype, self.precision = stride, dtype, precision

    def prepare(self, known: Float[Array, "b h w _"] | None = None, *, centered: bool = False) -> precomputed.Conv:
        """The convolution in prepared form.

        Args:
          known: the last map, if it is the same in all calls: it is convolved here, and the prepared layer takes only
            the other maps. Requires stride 1.
          centered: whether to subtract the output's mean over the channels from the output.
        """
        kernel = self.kernel[...]
        bias = jnp.zeros(kernel.shape[-1:], kernel.dtype) if self.bias is None else self.bias[...]
        if centered:
            kernel, bias = (v - jnp.mean(v, axis=-1, keepdims=True) for v in (kernel, bias))
        ends = [sum(self.in_channels[: i + 1]) for i in range(len(self.in_channels))]
        kernels = [v.astype(self.dtype or v.dtype) for v in jnp.split(kernel, ends[:-1], axis=2)]
        padding = ((kernel.shape[0] // 2,) * 2,) * 2
        if known is not None:
            bias = precomputed.Conv((kernels.pop(),), bias, padding, self.stride, self.precision)(known)
        return precomputed.Conv(tuple(kernels), bias, padding, self.stride, self.precision)

    def __call__(self, *maps: Float[Array, "b h w _"]) -> Float[Array, "b _ _ o"]:
        return self.prepare()(*maps)


class TransposedConv(nnx.Module):
    """Transposed convolution of stride 2, which doubles height and width.

    The kernel is 4×4 (padding 1) or 5×5 (padding 2, output padding 1). CPUs compute it by phases; see
    `models.convolution`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, dtype=None, precision="highest"):
        self.kernel = Weight(kernel, kernel, in_channels, out_channels)
        self.bias = Weight(out_channels)
        self.dtype, self.precision = dtype, precision

    def prepare(self) -> precomputed.TransposedConv:
        """The transposed convolution in prepared form."""
        kernel = self.kernel[...].astype(self.dtype or self.kernel.dtype)
        return precomputed.TransposedConv(kernel, transposed_phases(kernel), self.bias[...], self.precision)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        return self.prepare()(x)


class Linear(nnx.Module):
    """Affine map of the last axis. `dtype` and `precision` apply to its product."""

    def __init__(self, in_features: int, out_features: int, *, dtype=None, precision="highest"):
        self.kernel = Weight(in_features, out_features)
        self.bias = Weight(out_features)
        self.dtype, self.precision = dtype, precision

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        x, kernel, bias = (v.astype(self.dtype or v.dtype) for v in (x, self.kernel[...], self.bias[...]))
        return jnp.dot(x, kernel, precision=self.precision) + bias


class ConditionEmbedding(nnx.Module):
    """n scalars in [0, 1] (time, quality) → d features: Linear n→4d, exact GELU, Linear 4d→d."""

    def __init__(self, inputs: int, width: int, **options):
        self.first = Linear(inputs, 4 * width, **options)
        self.second = Linear(4 * width, width, **options)

    def __call__(self, conditions: Float[Array, "... n"]) -> Float[Array, "... d"]:
        return self.second(jax.nn.gelu(self.first(conditions), approximate=False))


class ChannelNorm(nnx.Module):
    """Weights of a layer norm over the channels of each pixel: biased variance, ε = 1e-5 inside the root."""

    def __init__(self, channels: int):
        self.scale = Weight(channels)
        self.bias = Weight(channels)


class ConvNormRelu(nnx.Module):
    """conv k×k → ChannelNorm → ReLU."""

    def __init__(self, in_channels: int | Sequence[int], out_channels: int, kernel: int = 3, **options):
        self.conv = Conv(in_channels, out_channels, kernel, **options)
        self.norm = ChannelNorm(out_channels)

    def prepare(self, known: Float[Array, "b h w _"] | None = None) -> precomputed.ConvNormRelu:
        """The layer in prepared form; `known` as in `Conv.prepare`."""
        conv = self.conv.prepare(known, centered=True)
        return precomputed.ConvNormRelu(conv, self.norm.scale[...], self.norm.bias[...])


class ResnetBlock(nnx.Module):
    """Two ConvNormRelu with a skip connection. With `time_features`, time features are added between the two.

    The input is the concatenation of one or more maps; `in_channels` is as in `Conv`.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        *,
        kernel: int = 3,
        time_features: int | None = None,
        **options,
    ):
        self.block1 = ConvNormRelu(in_channels, out_channels, kernel, **options)
        self.block2 = ConvNormRelu(out_channels, out_channels, **options)
        self.time = None if time_features is None else Linear(time_features, out_channels, **options)
        same = sum(self.block1.conv.in_channels) == out_channels
        self.skip = None if same else Conv(in_channels, out_channels, 1, **options)

    def prepare(self, known: Float[Array, "b h w _"] | None = None) -> precomputed.ResnetBlock:
        """The block in prepared form; `known` as in `Conv.prepare`."""
        skip = None if self.skip is None else self.skip.prepare(known)
        passed = known if self.skip is None else None
        return precomputed.ResnetBlock(self.block1.prepare(known), self.block2.prepare(), skip, passed)

    def embed(self, time: Float[Array, "b t"]) -> Float[Array, "b o"]:
        """What the block adds between its two layers, given the embedded time (and quality)."""
        return at_least_float32(self.time(leaky_relu(time)))

    def __call__(
        self, *maps: Float[Array, "b h w _"], time: Float[Array, "b t"] | None = None
    ) -> Float[Array, "b h w o"]:
        return self.prepare()(*maps, time=None if time is None else self.embed(time))


class LinearAttention(nnx.Module):
    """x + Out(Attn(ChannelNorm(x))): one head, softmax of the keys over all positions, cost linear in h·w.

    The softmax spans the whole map, so the output on a tile differs from that on the same region of the whole image.
    """

    def __init__(self, channels: int, **options):
        self.norm = ChannelNorm(channels)
        self.qkv = Conv(channels, 3 * channels, 1, use_bias=False, **options)
        self.out = Conv(channels, channels, 1, **options)

    def prepare(self) -> precomputed.LinearAttention:
        """The attention in prepared form."""
        gain, bias = self.norm.scale[...], self.norm.bias[...]
        query, key, value = jnp.split(self.qkv.kernel[0, 0], 3, axis=1)
        key = gain[:, None] * key
        return precomputed.LinearAttention(
            key.astype(self.qkv.dtype or key.dtype),
            query * query.shape[0] ** -0.5,
            jnp.dot(value, self.out.kernel[0, 0], precision="highest"),
            gain,
            bias,
            self.out.bias[...],
            self.qkv.precision,
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return self.prepare()(x)


def downsample(channels: int, **options) -> Conv:
    """Halves height and width with a 3×3 convolution of stride 2."""
    return Conv(channels, channels, 3, stride=2, **options)


def upsample(in_channels: int, out_channels: int | None = None, **options) -> TransposedConv:
    """Doubles height and width with a transposed 4×4 convolution."""
    return TransposedConv(in_channels, out_channels or in_channels, 4, **options)


def pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of neighboring widths: (a, b, c) → [(a, b), (b, c)]."""
    return list(zip(widths[:-1], widths[1:], strict=True))
