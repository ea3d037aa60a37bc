"""The convolutional part of VGG16, whose features LPIPS-VGG, DISTS and the metric fd-vgg compare.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, configuration D.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdc_jax.metrics.layers import PRECISION, Params, convolution, max_pool

# Number of convolutions and of channels of each stage, with pooling of stride 2 between stages.
STAGE_DEPTHS = (2, 2, 3, 3, 3)
STAGE_CHANNELS = (64, 128, 256, 512, 512)
LAST_KERNEL = f"convolutions.{sum(STAGE_DEPTHS) - 1}.kernel"
SMALLEST_SIDE = 2 ** (len(STAGE_DEPTHS) - 1)


def kernel_shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every weight, by name: `convolutions.0.kernel` … `convolutions.12.bias`."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels, index = 3, 0
    for depth, width in zip(STAGE_DEPTHS, STAGE_CHANNELS, strict=True):
        for _ in range(depth):
            shapes[f"convolutions.{index}.kernel"] = (3, 3, channels, width)
            shapes[f"convolutions.{index}.bias"] = (width,)
            channels, index = width, index + 1
    return shapes


def halving_max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """VGG16's max pooling, which halves both sides; an odd last row or column is left out."""
    return max_pool(x, 2, 2)


def vgg16_features(
    params: Params,
    x: Float[Array, "b h w 3"],
    *,
    pool: Callable[[Float[Array, "b h w c"]], Float[Array, "b h2 w2 c"]] = halving_max_pool,
    precision: str | None = PRECISION,
) -> list[Float[Array, "b h2 w2 c"]]:
    """The outputs of the five stages after their last ReLU: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.

    Args:
      params: the weights, with the names and shapes of `kernel_shapes`.
      x: images from `layers.imagenet_normalized`, with sides of at least `SMALLEST_SIDE`.
      pool: the pooling between stages, which halves both sides.
      precision: precision of the products, as in `jax.lax`.
    """
    outputs, index = [], 0
    for stage, depth in enumerate(STAGE_DEPTHS):
        if stage:
            x = pool(x)
        for _ in range(depth):
            kernel, bias = params[f"convolutions.{index}.kernel"], params[f"convolutions.{index}.bias"]
            x = jax.nn.relu(convolution(x, kernel, bias, padding=(1, 1), precision=precision))
            index += 1
        outputs.append(x)
    return outputs


def vgg16_mean_features(params: Params, x: Float[Array, "b h w 3"]) -> Float[Array, "b 512"]:
    """The features of the metric fd-vgg: relu5_3, averaged over all positions."""
    return jnp.mean(vgg16_features(params, x)[-1], axis=(1, 2))
