"""Building blocks of both networks: convolutions, channel norm, residual blocks, linear attention.

All tensors are NHWC, all kernels HWIO and cross-correlated. Initial weights come from `models.initial`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.quantize import at_least_float32

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


class TransposedConv(nnx.Module):
    """Transposed convolution of stride 2, 4×4 (padding 1) or 5×5 (padding 2, output padding 1): doubles h and w.

    The kernel is HWIO and cross-correlated with the input after a zero was put between its samples, 2 zeros before the
    first, 2 (4×4) or 3 (5×5) after the last. Computed without those zeros: output pixel 2p + a meets every second tap
    only, so one convolution at the input's resolution gives the four phases (a, b) as channels, and they are
    interleaved. The gradient is what gains: XLA's own, for the dilated input, takes six times as long on CPUs.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, dtype=None, precision="highest", rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(jnp.zeros((kernel, kernel, in_channels, out_channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((out_channels,), jnp.float32))
        self.dtype = dtype
        self.precision = precision

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        x, kernel, bias = (v.astype(self.dtype or v.dtype) for v in (x, self.kernel[...], self.bias[...]))
        odd = kernel.shape[0] % 2
        kernel = jnp.pad(kernel, ((0, odd), (0, odd), (0, 0), (0, 0)))
        taps, inputs, outputs = kernel.shape[0] // 2, *kernel.shape[2:]
        phases = kernel.reshape(taps, 2, taps, 2, inputs, outputs).transpose(0, 2, 4, 1, 3, 5)
        phases = phases.reshape(taps, taps, inputs, 4 * outputs)
        batch, height, width, _ = x.shape
        y = jax.lax.conv_general_dilated(
            x,
            phases,
            (1, 1),
            ((1, taps - 1), (1, taps - 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=self.precision,
        ).reshape(batch, height + 1, width + 1, 2, 2, outputs)
        rows = [
            jnp.stack([y[:, a : a + height, b : b + width, a, b] for b in (0, 1)], axis=3) for a in (0, 1)
        ]  # phase (a, b) of pixel (i, j) was computed at (i + a, j + b)
        return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, outputs) + bias


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
        k = jax.nn.softmax(at_least_float32(k), axis=1).astype(v.dtype)
        context = jnp.einsum("bnd,bne->bde", k, v, precision=self.precision)
        attended = jnp.einsum("bnd,bde->bne", q * self.channels**-0.5, context, precision=self.precision)
        return x + self.out(attended.reshape(b, h, w, c))


def downsample(channels: int, *, dtype=None, precision="highest", rngs: nnx.Rngs) -> nnx.Conv:
    """Halves height and width with a 3×3 convolution of stride 2."""
    return conv(channels, channels, 3, stride=2, dtype=dtype, precision=precision, rngs=rngs)


def upsample(
    in_channels: int, out_channels: int | None = None, *, dtype=None, precision="highest", rngs: nnx.Rngs
) -> TransposedConv:
    """Doubles height and width with a transposed 4×4 convolution."""
    return TransposedConv(in_channels, out_channels or in_channels, 4, dtype=dtype, precision=precision, rngs=rngs)


def pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring widths: (a, b, c) → [(a, b), (b, c)]."""
    return list(zip(widths[:-1], widths[1:], strict=True))
