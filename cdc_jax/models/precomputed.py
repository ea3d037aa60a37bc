"""The network's parts ready to run, an optimization: what depends on weights and known maps alone is computed already.

What they compute is defined in `models.plain_unet`. Every module of `models.blocks` makes one of these with `prepare`,
and the sampler keeps them for all its steps. They are pytrees, so that they pass through `jax.jit`. Four identities
make them cheaper than the definition:

  * a convolution over concatenated maps is a sum of convolutions, so that a known map's share is an offset;
  * subtracting a convolution's mean over its output channels is a convolution with the kernel's mean subtracted:
    of ChannelNorm only the division by the root mean square is left;
  * gain and bias of the attention's ChannelNorm move into its matrices (a bias of the keys cancels in the softmax);
  * linear attention is one C×C matrix: softmax(k)ᵀ v, between the projections of q and of the output.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdc_jax.models.convolution import Padding, Phases, convolve, transposed
from cdc_jax.models.transform import fold, unfold

NORM_EPSILON = 1e-5
_POSITIONS = 256  # summed at a time by attention's product of keys and values: what one core's cache holds


def _static(**options):
    return dataclasses.field(metadata={"static": True}, **options)


def _pytree(cls):
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@_pytree
class Conv:
    """Convolution over the concatenation of some maps, and of known ones whose share is in `offset`.

    Attributes:
      kernels: one for each map.
      offset: bias [o], or bias and the known maps' share [b, h, w, o], float32.
    """

    kernels: tuple[Float[Array, "k k _ o"], ...]
    offset: Float[Array, "..."]
    padding: Padding = _static()
    stride: int = _static()
    precision: str | None = _static()

    def __call__(self, *maps: Float[Array, "b h w _"]) -> Float[Array, "b _ _ o"]:
        """Float32, whatever the type of the products."""
        found = self.offset
        for x, kernel in zip(maps, self.kernels, strict=True):
            found = convolve(x.astype(kernel.dtype), kernel, self.padding, self.stride, self.precision) + found
        return found


@_pytree
class TransposedConv:
    """Doubles height and width."""

    kernel: Float[Array, "k k i o"]
    phases: Phases
    bias: Float[Array, " o"]
    precision: str | None = _static()

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        return transposed(x.astype(self.kernel.dtype), self.kernel, self.phases, self.precision) + self.bias


@_pytree
class ConvNormRelu:
    """conv → ChannelNorm → ReLU, the conv's output having mean 0 over the channels."""

    conv: Conv
    gain: Float[Array, " o"]
    bias: Float[Array, " o"]

    def __call__(self, *maps: Float[Array, "b h w _"]) -> Float[Array, "b h w o"]:
        return jax.nn.relu(_unit_power(self.conv(*maps)) * self.gain + self.bias)


@_pytree
class ResnetBlock:
    """Two ConvNormRelu and a skip: a 1×1 convolution, or the maps themselves and then `known`, concatenated."""

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
      key: of the normalized x, without ChannelNorm's gain (that is in it) and bias (that cancels).
      query: C^-½ times the query's matrix.
      value: the value's matrix times the output's.
      gain, bias: ChannelNorm's.
      out_bias: the output's.
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
        # The softmax over all positions, divided by its sum where that is smallest: in the C×C matrix.
        weights = jnp.exp(keys - jax.lax.stop_gradient(jnp.max(keys, axis=1, keepdims=True)))
        sums = jnp.sum(weights, axis=1)
        length = math.gcd(height * width, _POSITIONS)
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
    """Two residual blocks and attention, then a change of resolution where there is one."""

    block1: ResnetBlock
    block2: ResnetBlock
    attention: LinearAttention | None
    resize: Conv | TransposedConv | None

    def __call__(
        self, *maps: Float[Array, "b h w _"], times: tuple[Float[Array, "b o"], Float[Array, "b o"]]
    ) -> Float[Array, "b h w o"]:
        """Without the resizing, whose input the way up needs."""
        x = self.block2(self.block1(*maps, time=times[0]), time=times[1])
        return x if self.attention is None else self.attention(x)


@_pytree
class UNet:
    """The denoiser of one image: weights, and the context maps' shares.

    A call takes the noisy image and, of each residual block in the order of their use, the time embedding's features,
    [b, c] or [1, c] (`models.unet.UNet.embed`). With `rematerialize`, a gradient keeps each level's input and output
    only, and computes what lies between once more.
    """

    downs: tuple[Level, ...]
    middle: tuple[ResnetBlock, LinearAttention, ResnetBlock]
    ups: tuple[Level, ...]
    final_gain: Float[Array, " d"]
    final_bias: Float[Array, " d"]
    final_conv: Conv
    residual: Float[Array, "b h w 3"] | None  # what the prediction is a correction of
    fold: int = _static()

    def __call__(
        self, x: Float[Array, "b h w 3"], times: tuple[Float[Array, "b _"], ...], *, rematerialize: bool = False
    ) -> Float[Array, "b h w 3"]:
        times, kept = list(times), []
        run = jax.checkpoint(_run_level) if rematerialize else _run_level

        def of_level():
            return times.pop(0), times.pop(0)

        x = fold(x, self.fold)
        for level in self.downs:
            x = run(level, x, times=of_level())
            kept.append(x)
            if level.resize is not None:
                x = level.resize(x)
        first, attention, second = self.middle
        x = first(x, time=times.pop(0))
        x = second(attention(x), time=times.pop(0))
        for level in self.ups:  # in the paper's layout, the level-0 map is never used
            x = run(level, x, kept.pop(), times=of_level())
            x = x if level.resize is None else level.resize(x)
        x = unfold(self.final_conv(_normalized(x) * self.final_gain + self.final_bias), self.fold)
        return x if self.residual is None else x + self.residual


def _run_level(level: Level, *maps: Float[Array, "b h w _"], times) -> Float[Array, "b h w o"]:
    return level(*maps, times=times)


def _unit_power(x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """ChannelNorm of what has mean 0 already, without gain and bias."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + NORM_EPSILON)


def _normalized(x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """ChannelNorm without gain and bias. The mean goes first: the fast variance E[x²] − E[x]² cancels in float32."""
    return _unit_power(x - jnp.mean(x, axis=-1, keepdims=True))
