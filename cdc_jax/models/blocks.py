"""Building blocks of both networks: convolutions, channel norm, residual blocks, linear attention.

All tensors are NHWC. Transposed convolutions are ordinary ones over the input with zeros between its samples
(`input_dilation`), so every kernel is HWIO and cross-correlated. Initial weights come from `models.initial`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

LEAKY_SLOPE = 0.2


def leaky_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0.2·x)."""
    return jax.nn.leaky_relu(x, LEAKY_SLOPE)


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    use_bias: bool = True,
    dtype: jnp.dtype | None = None,
    precision: str | None = "highest",
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """k×k convolution, padded by k // 2: [b, h, w, i] → [b, h/stride, w/stride, o]."""
    return nnx.Conv(
        in_channels,
        out_channels,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((kernel // 2, kernel // 2),) * 2,
        use_bias=use_bias,
        dtype=dtype,
        precision=precision,
        rngs=rngs,
    )


def transposed_conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    dtype: jnp.dtype | None = None,
    precision: str | None = "highest",
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Transposed convolution of stride 2, 4×4 (padding 1) or 5×5 (padding 2, output padding 1): doubles h and w."""
    padding = {4: (2, 2), 5: (2, 3)}[kernel]
    return nnx.Conv(
        in_channels,
        out_channels,
        (kernel, kernel),
        input_dilation=2,
        padding=(padding, padding),
        dtype=dtype,
        precision=precision,
        rngs=rngs,
    )


def linear(in_features: int, out_features: int, *, dtype=None, precision="highest", rngs: nnx.Rngs) -> nnx.Linear:
    """Affine map of the last axis."""
    return nnx.Linear(
        in_features,
        out_features,
        dtype=dtype,
        precision=precision,
        rngs=rngs,
    )


def channel_norm(channels: int, *, dtype=None, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Normalizes each pixel over its channels: biased variance, ε = 1e-5 inside the root, gain and bias."""
    # The fast variance E[x²] − E[x]² cancels in float32.
    return nnx.LayerNorm(channels, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)


class ConvNormRelu(nnx.Module):
    """conv k×k → ChannelNorm → ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, dtype=None, precision="highest", rngs):
        self.conv = conv(in_channels, out_channels, kernel, dtype=dtype, precision=precision, rngs=rngs)
        self.norm = channel_norm(out_channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        return jax.nn.relu(self.norm(self.conv(x)))


class ResnetBlock(nnx.Module):
    """Two ConvNormRelu with a skip; the time embedding, where there is one, is added between them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        time_features: int | None = None,
        dtype=None,
        precision="highest",
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "precision": precision, "rngs": rngs}
        self.block1 = ConvNormRelu(in_channels, out_channels, kernel, **options)
        self.block2 = ConvNormRelu(out_channels, out_channels, **options)
        self.time = None if time_features is None else linear(time_features, out_channels, **options)
        self.skip = None if in_channels == out_channels else conv(in_channels, out_channels, 1, **options)

    def __call__(self, x: Float[Array, "b h w i"], time: Float[Array, "b t"] | None = None) -> Float[Array, "b h w o"]:
        h = self.block1(x)
        if self.time is not None:
            h = h + self.time(leaky_relu(time))[:, None, None, :]
        h = self.block2(h)
        return h + (x if self.skip is None else self.skip(x))


class LinearAttention(nnx.Module):
    """x + Out(Attn(ChannelNorm(x))): one head, soft-max of the keys over all positions, cost linear in h·w.

    The soft-max spans the whole map, so a tile is not equivalent to the same region of the whole picture.
    """

    def __init__(self, channels: int, *, dtype=None, precision="highest", rngs: nnx.Rngs):
        options = {"dtype": dtype, "precision": precision, "rngs": rngs}
        self.norm = channel_norm(channels, dtype=dtype, rngs=rngs)
        self.qkv = conv(channels, 3 * channels, 1, use_bias=False, **options)
        self.out = conv(channels, channels, 1, **options)
        self.channels = channels
        self.precision = precision

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        q, k, v = jnp.split(self.qkv(self.norm(x)).reshape(b, h * w, 3 * c), 3, axis=-1)
        k = jax.nn.softmax(k.astype(jnp.float32), axis=1).astype(v.dtype)
        context = jnp.einsum("bnd,bne->bde", k, v, precision=self.precision)
        attended = jnp.einsum("bnd,bde->bne", q * self.channels**-0.5, context, precision=self.precision)
        return x + self.out(attended.reshape(b, h, w, c))


def downsample(channels: int, *, dtype=None, precision="highest", rngs: nnx.Rngs) -> nnx.Conv:
    """Halves height and width with a 3×3 convolution of stride 2."""
    return conv(channels, channels, 3, stride=2, dtype=dtype, precision=precision, rngs=rngs)


def upsample(
    in_channels: int, out_channels: int | None = None, *, dtype=None, precision="highest", rngs: nnx.Rngs
) -> nnx.Conv:
    """Doubles height and width with a transposed 4×4 convolution."""
    return transposed_conv(in_channels, out_channels or in_channels, 4, dtype=dtype, precision=precision, rngs=rngs)


def pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring widths: (a, b, c) → [(a, b), (b, c)]."""
    return list(zip(widths[:-1], widths[1:], strict=True))
