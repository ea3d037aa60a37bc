"""A plain implementation of the U-Net: the readable definition, and the reference for the optimized one in tests.

Like the paper's implementation, it concatenates inputs, computes transposed convolutions with zeros between samples,
and attention as four products, but in NHWC. All other code runs the optimized form in `models.precomputed`. Tests check
that the values and gradients of both agree.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.transform import fold, unfold


def plain_unet(
    config: ModelConfig,
    params: Mapping[str, Array],
    x: Float[Array, "b h w 3"],
    time: Float[Array, " b"],
    context: Context,
    quality: Float[Array, " b"] | None = None,
) -> Float[Array, "b h w 3"]:
    """The U-Net's prediction: the clean image, noise or velocity, according to `config.prediction`.

    Args:
      config: the architecture.
      params: float32 weights by dotted name, `unet.…`.
      x, time, context, quality: as in `cdc_jax.models.unet.UNet.__call__`.
    """
    conditions = time[:, None] if quality is None else jnp.stack([time, quality], axis=-1)
    embedded = _linear(params, "unet.time_embedding.first", conditions)
    embedded = _linear(params, "unet.time_embedding.second", jax.nn.gelu(embedded, approximate=False))
    levels, kept = len(config.unet_channels), []
    x = fold(x, config.fold)
    for i in range(levels):
        known = list(context.maps[i : i + 1])
        if i == 0 and context.preview is not None:
            known.append(fold(context.preview, config.fold))
        x = _level(params, f"unet.downs.{i}", jnp.concatenate([x, *known], axis=-1), embedded)
        kept.append(x)
        if i < levels - 1:
            x = _conv(params, f"unet.downs.{i}.resize", x, stride=2)
    x = _resnet(params, "unet.middle.0", x, embedded)
    x = _attention(params, "unet.middle_attention", x)
    x = _resnet(params, "unet.middle.1", x, embedded)
    for i in range(levels if config.compact else levels - 1):  # the paper's layout does not use level 0's map
        x = _level(params, f"unet.ups.{i}", jnp.concatenate([x, kept.pop()], axis=-1), embedded)
        if i < levels - 1:
            x = _transposed(params, f"unet.ups.{i}.resize", x)
    x = unfold(_conv(params, "unet.final_conv", _norm(params, "unet.final_norm", x)), config.fold)
    corrects = context.preview is not None and config.prediction == "x"
    return x + context.preview if corrects else x


def _level(params, name, x, time):
    x = _resnet(params, f"{name}.block1", x, time)
    x = _resnet(params, f"{name}.block2", x, time)
    return _attention(params, f"{name}.attention", x) if f"{name}.attention.qkv.kernel" in params else x


def _resnet(params, name, x, time):
    h = jax.nn.relu(_norm(params, f"{name}.block1.norm", _conv(params, f"{name}.block1.conv", x)))
    h = h + _linear(params, f"{name}.time", jax.nn.leaky_relu(time, 0.2))[:, None, None, :]
    h = jax.nn.relu(_norm(params, f"{name}.block2.norm", _conv(params, f"{name}.block2.conv", h)))
    return h + (_conv(params, f"{name}.skip", x) if f"{name}.skip.kernel" in params else x)


def _attention(params, name, x):
    batch, height, width, channels = x.shape
    qkv = _conv(params, f"{name}.qkv", _norm(params, f"{name}.norm", x)).reshape(batch, height * width, 3 * channels)
    q, k, v = jnp.split(qkv, 3, axis=-1)
    k = jax.nn.softmax(k, axis=1)
    context = jnp.einsum("bnd,bne->bde", k, v, precision="highest")
    attended = jnp.einsum("bnd,bde->bne", q * channels**-0.5, context, precision="highest")
    return x + _conv(params, f"{name}.out", attended.reshape(x.shape))


def _norm(params, name, x):
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * params[f"{name}.scale"] + params[f"{name}.bias"]


def _linear(params, name, x):
    return jnp.dot(x, params[f"{name}.kernel"], precision="highest") + params[f"{name}.bias"]


def _conv(params, name, x, stride=1):
    kernel = params[f"{name}.kernel"]
    pad = kernel.shape[0] // 2
    y = _convolve(x, kernel, (pad, pad), window_strides=(stride, stride))
    return y + params[f"{name}.bias"] if f"{name}.bias" in params else y


def _transposed(params, name, x):
    return _convolve(x, params[f"{name}.kernel"], (2, 2), lhs_dilation=(2, 2)) + params[f"{name}.bias"]


def _convolve(x, kernel, pad, window_strides=(1, 1), lhs_dilation=None):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides,
        (pad, pad),
        lhs_dilation=lhs_dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
