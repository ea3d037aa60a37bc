"""The networks' layers in prepared form: whatever depends only on weights and context maps is computed in advance.

`models.plain_unet` defines what these layers compute. Every module of `models.blocks` returns one of them from its
`prepare` method, and the sampler reuses them in all its steps. They are pytrees, so they can be passed to jitted
functions. Four identities make them cheaper than the definition:

  * A convolution of concatenated maps is a sum of convolutions, so the contribution of a map that is known in advance
    is an offset.
  * Subtracting the mean over the channels from a convolution's output is the same as subtracting the kernel's mean from
    the kernel. Only ChannelNorm's division by the root mean square remains.
  * The gain and bias of the attention's ChannelNorm can be merged into its matrices. A bias of the keys cancels in the
    softmax.
  * Linear attention is a product with one C×C matrix: softmax(k)ᵀ v, multiplied by the projections of q and of the
    output.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdc_jax.models.convolution import Padding, Phases, convolve, transposed
from cdc_jax.models.transform import fold, unfold
from cdc_jax.models.valid_region import clear_outside, inside

NORM_EPSILON = 1e-5
# Candidates for the number of positions per partial sum in attention's product of keys and values; the first that
# divides the number of positions is used. Partial sums should fit into a core's cache.
_POSITIONS = (256, 128, 64, 32, 16, 8, 4, 2, 1)


# Fields that may be maps, computed from the context maps. Everything else depends on the weights alone.
_MAPS = ("offset", "known", "residual")


def _static(**options):
    return dataclasses.field(metadata={"static": True}, **options)


def _pytree(cls):
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@_pytree
class Conv:
    """Convolution of the concatenation of maps, the last of which may be known in advance.

    Attributes:
      kernels: a kernel for each map that is not known in advance.
      offset: float32; the bias [o], or the bias plus the known map's contribution [b, h, w, o].
      padding, stride, precision: as in `convolution.convolve`.
    """

    kernels: tuple[Float[Array, "k k _ o"], ...]
    offset: Float[Array, "..."]
    padding: Padding = _static()
    stride: int = _static()
    precision: str | None = _static()

    def __call__(self, *maps: Float[Array, "b h w _"]) -> Float[Array, "b _ _ o"]:
        """The output in float32, whatever the dtype of the products."""
        total = self.offset
        for x, kernel in zip(maps, self.kernels, strict=True):
            x = x if kernel.shape[0] == 1 else clear_outside(x)
            total = convolve(x.astype(kernel.dtype), kernel, self.padding, self.stride, self.precision) + total
        return total


@_pytree
class TransposedConv:
    """Transposed convolution that doubles height and width; the attributes are as in `convolution.transposed`."""

    kernel: Float[Array, "k k i o"]
    phases: Phases
    bias: Float[Array, " o"]
    precision: str | None = _static()

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        x = clear_outside(x)
        return transposed(x.astype(self.kernel.dtype), self.kernel, self.phases, self.precision) + self.bias


@_pytree
class ConvNormRelu:
    """conv → ChannelNorm → ReLU, where the conv's output already has mean 0 over the channels."""

    conv: Conv
    gain: Float[Array, " o"]
    bias: Float[Array, " o"]

    def __call__(self, *maps: Float[Array, "b h w _"]) -> Float[Array, "b h w o"]:
        return jax.nn.relu(_unit_power(self.conv(*maps)) * self.gain + self.bias)


@_pytree
class ResnetBlock:
    """Two ConvNormRelu with a skip connection.

    Attributes:
      block1, block2: the two layers.
      skip: the 1×1 convolution of the skip connection; None for an identity.
      known: the last input map, if it is known in advance and the skip connection is an identity.
    """

    block1: ConvNormRelu
    block2: ConvNormRelu
    skip: Conv | None
    known: Float[Array, "b h w _"] | None

    def __call__(
        self, *maps: Float[Array, "b h w _"], time: Float[Array, "b o"] | None = None
    ) -> Float[Array, "b h w o"]:
        h = self.block1(*maps)
        if time is not None:
            h = h + time[:, None, None, :]
        h = self.block2(h)
        if self.skip is not None:
            return h + self.skip(*maps)
        maps = maps if self.known is None else (*maps, self.known)
        return h + (maps[0] if len(maps) == 1 else jnp.concatenate(maps, axis=-1))


@_pytree
class LinearAttention:
    """x + Out(Attn(ChannelNorm(x))).

    Attributes:
      key: the matrix of the keys, with ChannelNorm's gain merged into it. ChannelNorm's bias cancels in the softmax.
      query: the matrix of the queries, times C^-½.
      value: the matrix of the values times that of the output projection.
      gain, bias: ChannelNorm's weights.
      out_bias: the output projection's bias.
      precision: precision of the products with maps, as in `jax.lax`.
    """

    key: Float[Array, "c c"]
    query: Float[Array, "c c"]
    value: Float[Array, "c c"]
    gain: Float[Array, " c"]
    bias: Float[Array, " c"]
    out_bias: Float[Array, " c"]
    precision: str | None = _static()

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        batch, height, width, channels = x.shape
        normalized = _normalized(x).reshape(batch, height * width, channels)
        narrow = normalized.astype(self.key.dtype)
        keys = self._product("bnc,cd->bnd", narrow, self.key)
        valid = inside(height, width)
        if valid is not None:
            keys = jnp.where(valid.reshape(-1, height * width, 1), keys, -jnp.inf)
        # Softmax over all positions; the division by its sums is done on the C×C matrix, which is smaller.
        weights = jnp.exp(keys - jax.lax.stop_gradient(jnp.max(keys, axis=1, keepdims=True)))
        sums = jnp.sum(weights, axis=1)
        length = _sum_length(height * width)
        pieces = (batch, height * width // length, length, channels)
        matrix = self._product(
            "bpnd,bpnc->bpdc", weights.astype(narrow.dtype).reshape(pieces), narrow.reshape(pieces)
        ).sum(1)
        matrix = matrix / sums[:, :, None] * self.gain + self.bias
        matrix = jnp.einsum("cd,bde,ef->bcf", self.query, matrix, self.value, precision="highest")
        offset = self.out_bias + jnp.einsum("c,bcd->bd", self.bias, matrix, precision="highest")
        matrix = (self.gain[:, None] * matrix).astype(narrow.dtype)
        attended = self._product("bnc,bcd->bnd", narrow, matrix).reshape(x.shape)
        return x + attended + offset[:, None, None, :]

    def _product(self, subscripts: str, *operands: Array) -> Array:
        wide = jnp.promote_types(operands[0].dtype, jnp.float32)
        return jnp.einsum(subscripts, *operands, precision=self.precision, preferred_element_type=wide)


@_pytree
class Level:
    """Two residual blocks, optional attention, and an optional change of resolution."""

    block1: ResnetBlock
    block2: ResnetBlock
    attention: LinearAttention | None
    resize: Conv | TransposedConv | None

    def __call__(
        self, *maps: Float[Array, "b h w _"], times: tuple[Float[Array, "b o"], Float[Array, "b o"]]
    ) -> Float[Array, "b h w o"]:
        """The output before the change of resolution, which the caller applies: the skip connections need its input."""
        x = self.block2(self.block1(*maps, time=times[0]), time=times[1])
        return x if self.attention is None else self.attention(x)


@_pytree
class UNet:
    """The denoiser, prepared for the context maps of one batch of images.

    Attributes:
      downs, middle, ups: the levels, in the order of use.
      final_gain, final_bias: weights of the last ChannelNorm.
      final_conv: the output layer.
      residual: the preview, if the prediction is a correction of it.
      fold: side of the pixel squares that are folded into channels.
    """

    downs: tuple[Level, ...]
    middle: tuple[ResnetBlock, LinearAttention, ResnetBlock]
    ups: tuple[Level, ...]
    final_gain: Float[Array, " d"]
    final_bias: Float[Array, " d"]
    final_conv: Conv
    residual: Float[Array, "b h w 3"] | None
    fold: int = _static()

    def __call__(
        self, x: Float[Array, "b h w 3"], times: tuple[Float[Array, "b _"], ...], *, rematerialize: bool = False
    ) -> Float[Array, "b h w 3"]:
        """Predicts the clean image, noise or velocity.

        Args:
          x: the noisy image.
          times: from `models.unet.UNet.embed`; b may be 1.
          rematerialize: in the backward pass, keep only each level's input and output and recompute the rest.
        """
        times, kept = list(times), []
        run = jax.checkpoint(_run_level) if rematerialize else _run_level

        def next_two():
            return times.pop(0), times.pop(0)

        x = fold(x, self.fold)
        for level in self.downs:
            x = run(level, x, times=next_two())
            kept.append(x)
            if level.resize is not None:
                x = level.resize(x)
        first, attention, second = self.middle
        x = first(x, time=times.pop(0))
        x = second(attention(x), time=times.pop(0))
        for level in self.ups:  # the paper's layout does not use level 0's map
            x = run(level, x, kept.pop(), times=next_two())
            x = x if level.resize is None else level.resize(x)
        x = unfold(self.final_conv(_normalized(x) * self.final_gain + self.final_bias), self.fold)
        return x if self.residual is None else x + self.residual


def maps_of(unet: UNet) -> list[Float[Array, "b _ _ _"]]:
    """What depends on the context maps. The rest of the U-Net is the same for all images of its size."""
    return [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(unet) if _is_map(path, leaf)]


def with_maps(unet: UNet, maps: list[Float[Array, "b _ _ _"]]) -> UNet:
    """The U-Net with its `maps_of` replaced by those of another one of the same model and size."""
    others = iter(maps)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: next(others) if _is_map(path, leaf) else leaf, unet)


def _is_map(path: tuple, leaf: Array) -> bool:
    return getattr(path[-1], "name", None) in _MAPS and leaf.ndim == 4


def _run_level(level: Level, *maps: Float[Array, "b h w _"], times) -> Float[Array, "b h w o"]:
    return level(*maps, times=times)


def _sum_length(positions: int) -> int:
    """The first of `_POSITIONS` that divides the number of positions, which may be a symbol (`jax.export`)."""
    return next(length for length in _POSITIONS if positions % length == 0)


def _unit_power(x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """ChannelNorm, without gain and bias, of maps that already have mean 0 over the channels."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + NORM_EPSILON)


def _normalized(x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """ChannelNorm without gain and bias. It subtracts the mean first, since E[x²] − E[x]² is inexact in float32."""
    return _unit_power(x - jnp.mean(x, axis=-1, keepdims=True))
