"""The convolutional part of AlexNet, whose features LPIPS-Alex compares.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014: the one-column variant.
"""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from cdc_jax.metrics.layers import PRECISION, Params, convolution, max_pool

# (kernel size, stride, padding, channels) of each convolution; 3×3 max pooling of stride 2 before the second and third.
LAYERS = ((11, 4, 2, 64), (5, 1, 2, 192), (3, 1, 1, 384), (3, 1, 1, 256), (3, 1, 1, 256))
_POOLED_BEFORE = (1, 2)
SMALLEST_SIDE = 31


def kernel_shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every weight, by name: `convolutions.0.kernel` … `convolutions.4.bias`."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for index, (side, _, _, width) in enumerate(LAYERS):
        shapes[f"convolutions.{index}.kernel"] = (side, side, channels, width)
        shapes[f"convolutions.{index}.bias"] = (width,)
        channels = width
    return shapes


def alexnet_features(
    params: Params, x: Float[Array, "b h w 3"], *, precision: str | None = PRECISION
) -> list[Float[Array, "b h2 w2 c"]]:
    """The outputs of the five convolutions, after ReLU.

    Args:
      params: the weights, with the names and shapes of `kernel_shapes`.
      x: images from `layers.imagenet_normalized`, with sides of at least `SMALLEST_SIDE`.
      precision: precision of the convolutions, as in `jax.lax`.
    """
    outputs = []
    for index, (_, stride, padding, _) in enumerate(LAYERS):
        if index in _POOLED_BEFORE:
            x = max_pool(x, 3, 2)
        kernel, bias = params[f"convolutions.{index}.kernel"], params[f"convolutions.{index}.bias"]
        x = convolution(x, kernel, bias, stride=stride, padding=(padding, padding), precision=precision)
        x = jax.nn.relu(x)
        outputs.append(x)
    return outputs
