"""The Inception-v3 of the Fréchet inception distance (FID), and the import of its weights.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, in the variant that defines FID,
TensorFlow's graph of 2015: average pooling ignores padding, the last block uses max pooling, and images are resized to
299×299 with TensorFlow 1's bilinear rule (pixel i of the output lies at i·h/299 of the input) and scaled to (x - 128) /
128. The features are the 2048 spatial means before the classifier.

The user supplies the weights: `pt_inception-2015-12-05-6726825d.pth`, published with pytorch-fid. Batch normalization
(ε = 0.001) is merged into the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from cdc_jax.errors import CdcError, CheckpointError
from cdc_jax.io.torch_file import read_torch_file
from cdc_jax.metrics.layers import Params, average_pool_within, convolution, max_pool

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
FEATURES = 2048
_INPUT_SIDE = 299
_CLASSES = 1008
_EPSILON = 1e-3
_NAMED_AT_MOST = 3  # number of weights that a message names

_STEM = {
    "Conv2d_1a_3x3": (3, 3, 3, 32),
    "Conv2d_2a_3x3": (3, 3, 32, 32),
    "Conv2d_2b_3x3": (3, 3, 32, 64),
    "Conv2d_3b_1x1": (1, 1, 64, 80),
    "Conv2d_4a_3x3": (3, 3, 80, 192),
}


def _block_a(channels: int, pooled: int) -> dict[str, tuple[int, ...]]:
    return {
        "branch1x1": (1, 1, channels, 64),
        "branch5x5_1": (1, 1, channels, 48),
        "branch5x5_2": (5, 5, 48, 64),
        "branch3x3dbl_1": (1, 1, channels, 64),
        "branch3x3dbl_2": (3, 3, 64, 96),
        "branch3x3dbl_3": (3, 3, 96, 96),
        "branch_pool": (1, 1, channels, pooled),
    }


def _block_c(width: int) -> dict[str, tuple[int, ...]]:
    return {
        "branch1x1": (1, 1, 768, 192),
        "branch7x7_1": (1, 1, 768, width),
        "branch7x7_2": (1, 7, width, width),
        "branch7x7_3": (7, 1, width, 192),
        "branch7x7dbl_1": (1, 1, 768, width),
        "branch7x7dbl_2": (7, 1, width, width),
        "branch7x7dbl_3": (1, 7, width, width),
        "branch7x7dbl_4": (7, 1, width, width),
        "branch7x7dbl_5": (1, 7, width, 192),
        "branch_pool": (1, 1, 768, 192),
    }


def _block_e(channels: int) -> dict[str, tuple[int, ...]]:
    return {
        "branch1x1": (1, 1, channels, 320),
        "branch3x3_1": (1, 1, channels, 384),
        "branch3x3_2a": (1, 3, 384, 384),
        "branch3x3_2b": (3, 1, 384, 384),
        "branch3x3dbl_1": (1, 1, channels, 448),
        "branch3x3dbl_2": (3, 3, 448, 384),
        "branch3x3dbl_3a": (1, 3, 384, 384),
        "branch3x3dbl_3b": (3, 1, 384, 384),
        "branch_pool": (1, 1, channels, 192),
    }


_BLOCKS = {
    "Mixed_5b": _block_a(192, 32),
    "Mixed_5c": _block_a(256, 64),
    "Mixed_5d": _block_a(288, 64),
    "Mixed_6a": {
        "branch3x3": (3, 3, 288, 384),
        "branch3x3dbl_1": (1, 1, 288, 64),
        "branch3x3dbl_2": (3, 3, 64, 96),
        "branch3x3dbl_3": (3, 3, 96, 96),
    },
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": {
        "branch3x3_1": (1, 1, 768, 192),
        "branch3x3_2": (3, 3, 192, 320),
        "branch7x7x3_1": (1, 1, 768, 192),
        "branch7x7x3_2": (1, 7, 192, 192),
        "branch7x7x3_3": (7, 1, 192, 192),
        "branch7x7x3_4": (3, 3, 192, 192),
    },
    "Mixed_7b": _block_e(1280),
    "Mixed_7c": _block_e(2048),
}


def layer_shapes() -> dict[str, tuple[int, ...]]:
    """Shape (kh, kw, in, out) of the kernel of every convolution, by its name in the file."""
    inside = {f"{block}.{name}": shape for block, layers in _BLOCKS.items() for name, shape in layers.items()}
    return {**_STEM, **inside}


def file_shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every array that the weights file must contain, by its key."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns, channels, width) in layer_shapes().items():
        shapes[f"{name}.conv.weight"] = (width, channels, rows, columns)
        shapes |= {f"{name}.bn.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {**shapes, "fc.weight": (_CLASSES, FEATURES), "fc.bias": (_CLASSES,)}


def load_inception(path: str | Path | None) -> Params:
    """Reads pytorch-fid's weights file.

    Args:
      path: the file; None raises an error that explains which file is needed.

    Returns:
      `NAME.kernel` and `NAME.bias` for each layer of `layer_shapes`, with batch normalization merged in.

    Raises:
      CdcError: no path was given.
      CheckpointError: the file cannot be read or belongs to another network; the message names the first keys that
        differ.
    """
    if path is None:
        raise CdcError(f"FID needs Inception weights: give pytorch-fid's file {WEIGHTS_FILE} with --fid-weights.")
    tensors = {name: t for name, t in read_torch_file(path).items() if not name.endswith(".num_batches_tracked")}
    shapes = file_shapes()
    faults = {
        "lacks": [name for name in shapes if name not in tensors],
        "has the unknown": [name for name in tensors if name not in shapes],
        "has another shape at": [name for name in shapes if name in tensors and tensors[name].shape != shapes[name]],
    }
    if any(faults.values()):
        differences = "; ".join(f"it {what} {_listed(names)}" for what, names in faults.items() if names)
        raise CheckpointError(f"{path} does not hold the Inception weights of {WEIGHTS_FILE}: {differences}.")
    for name in shapes:
        if not np.isfinite(tensors[name]).all():
            raise CheckpointError(f"{path}: The weight {name} has values that are not finite.")
    params = {}
    for name in layer_shapes():
        norm = {leaf: tensors[f"{name}.bn.{leaf}"].astype(np.float64) for leaf in ("weight", "bias", "running_mean")}
        gain = norm["weight"] / np.sqrt(tensors[f"{name}.bn.running_var"].astype(np.float64) + _EPSILON)
        kernel = tensors[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * gain
        params[f"{name}.kernel"] = jnp.asarray(kernel, jnp.float32)
        params[f"{name}.bias"] = jnp.asarray(norm["bias"] - norm["running_mean"] * gain, jnp.float32)
    return params


def _listed(names: list[str]) -> str:
    rest = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")


def _resize_matrix(side: int) -> Float[np.ndarray, "299 side"]:
    """TensorFlow 1's bilinear resizing of one axis to 299 pixels, as a matrix."""
    positions = np.arange(_INPUT_SIDE, dtype=np.float32) * np.float32(side / _INPUT_SIDE)
    lower = np.floor(positions).astype(int)
    fraction = positions - lower
    matrix = np.zeros((_INPUT_SIDE, side), np.float32)
    rows = np.arange(_INPUT_SIDE)
    np.add.at(matrix, (rows, lower), 1 - fraction)
    np.add.at(matrix, (rows, np.minimum(lower + 1, side - 1)), fraction)
    return matrix


@jax.jit
def inception_features(params: Params, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b 2048"]:
    """The features that FID compares.

    Args:
      params: from `load_inception`.
      images: images of any size.
    """
    rows, columns = (_resize_matrix(side) for side in images.shape[1:3])
    x = jnp.einsum("ph,qw,bhwc->bpqc", rows, columns, images.astype(jnp.float32), precision="highest")
    x = _stem(_Convolutions(params), (x - 128) / 128)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _mixed_5(_Convolutions(params, name), x)
    x = _mixed_6a(_Convolutions(params, "Mixed_6a"), x)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = _mixed_6(_Convolutions(params, name), x)
    x = _mixed_7a(_Convolutions(params, "Mixed_7a"), x)
    x = _mixed_7(_Convolutions(params, "Mixed_7b"), x, average_pool_within(x))
    x = _mixed_7(_Convolutions(params, "Mixed_7c"), x, max_pool(x, 3, 1, padding=1))
    return x.mean(axis=(1, 2))


class _Convolutions:
    """The convolutions of a block, each followed by ReLU."""

    def __init__(self, params: Params, block: str = ""):
        self._params, self._prefix = params, f"{block}." if block else ""

    def __call__(self, name: str, x: Array, stride: int = 1, same: bool = True) -> Array:
        """Applies a convolution; with `same`, it is padded so that stride 1 keeps the size."""
        kernel, bias = (self._params[f"{self._prefix}{name}.{leaf}"] for leaf in ("kernel", "bias"))
        padding = tuple(side // 2 for side in kernel.shape[:2]) if same else (0, 0)
        return jax.nn.relu(convolution(x, kernel, bias, stride=stride, padding=padding))

    def chain(self, name: str, numbers: Sequence[int], x: Array) -> Array:
        """Applies NAME_1, NAME_2, …, for these numbers."""
        for number in numbers:
            x = self(f"{name}_{number}", x)
        return x


def _stem(conv: _Convolutions, x: Array) -> Array:
    x = conv("Conv2d_1a_3x3", x, stride=2, same=False)
    x = conv("Conv2d_2a_3x3", x, same=False)
    x = max_pool(conv("Conv2d_2b_3x3", x), 3, 2)
    x = conv("Conv2d_3b_1x1", x)
    return max_pool(conv("Conv2d_4a_3x3", x, same=False), 3, 2)


def _mixed_5(conv: _Convolutions, x: Array) -> Array:
    double = conv.chain("branch3x3dbl", (1, 2, 3), x)
    pooled = conv("branch_pool", average_pool_within(x))
    return jnp.concatenate([conv("branch1x1", x), conv.chain("branch5x5", (1, 2), x), double, pooled], axis=-1)


def _mixed_6a(conv: _Convolutions, x: Array) -> Array:
    single = conv("branch3x3", x, stride=2, same=False)
    double = conv("branch3x3dbl_3", conv.chain("branch3x3dbl", (1, 2), x), stride=2, same=False)
    return jnp.concatenate([single, double, max_pool(x, 3, 2)], axis=-1)


def _mixed_6(conv: _Convolutions, x: Array) -> Array:
    single, double = conv.chain("branch7x7", (1, 2, 3), x), conv.chain("branch7x7dbl", (1, 2, 3, 4, 5), x)
    pooled = conv("branch_pool", average_pool_within(x))
    return jnp.concatenate([conv("branch1x1", x), single, double, pooled], axis=-1)


def _mixed_7a(conv: _Convolutions, x: Array) -> Array:
    single = conv("branch3x3_2", conv("branch3x3_1", x), stride=2, same=False)
    triple = conv("branch7x7x3_4", conv.chain("branch7x7x3", (1, 2, 3), x), stride=2, same=False)
    return jnp.concatenate([single, triple, max_pool(x, 3, 2)], axis=-1)


def _mixed_7(conv: _Convolutions, x: Array, pooled: Array) -> Array:
    single, double = conv("branch3x3_1", x), conv.chain("branch3x3dbl", (1, 2), x)
    branches = [
        conv("branch1x1", x),
        conv("branch3x3_2a", single),
        conv("branch3x3_2b", single),
        conv("branch3x3dbl_3a", double),
        conv("branch3x3dbl_3b", double),
        conv("branch_pool", pooled),
    ]
    return jnp.concatenate(branches, axis=-1)
