"""A model's weights as one flat dict, and conversions to and from it.

Keys are dotted module paths such as `compressor.encoder.blocks.0.block1.conv.kernel`. Jitted functions, checkpoints
and bundles all use this form; inside a traced function, `merge` turns it into a callable model. Flax is imported only
where a model is built: a command whose programs are cached on disk builds none.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, Float

from cdc_jax.entropy import exact_math
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import BundleError
from cdc_jax.models.config import ModelConfig
from cdc_jax.runtime import kept_results

if TYPE_CHECKING:
    from cdc_jax.models.cdc import CDC

Params = dict[str, Array]


@functools.lru_cache(maxsize=16)
def _structure(config: ModelConfig, unet_dtype: str | None, unet_precision: str | None):
    from flax import nnx

    from cdc_jax.models.cdc import CDC

    model = CDC(config, unet_dtype=unet_dtype, unet_precision=unet_precision)
    graphdef, state = nnx.split(model, nnx.Param)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(state)
    return graphdef, treedef, {_name(path): leaf for path, leaf in leaves}


@functools.lru_cache(maxsize=16)
def transposed_convolutions(config: ModelConfig) -> frozenset[str]:
    """Dotted names of the model's transposed convolutions."""
    from flax import nnx

    from cdc_jax.models.blocks import TransposedConv
    from cdc_jax.models.cdc import CDC

    modules = nnx.iter_modules(CDC(config))
    return frozenset(".".join(map(str, path)) for path, module in modules if isinstance(module, TransposedConv))


def _name(path) -> str:
    keys = [getattr(key, "key", getattr(key, "idx", None)) for key in path]
    return ".".join(str(key) for key in keys if key is not None)


def merge(
    config: ModelConfig,
    params: Mapping[str, Array],
    *,
    unet_dtype: str | None = None,
    unet_precision: str | None = "highest",
) -> CDC:
    """Returns a model with these weights. Cheap, and meant to be called inside `jax.jit`.

    Args:
      config: the architecture.
      params: all weights by name.
      unet_dtype: dtype of the U-Net's products, such as "bfloat16"; None: that of the weights.
      unet_precision: precision of the U-Net's products, as in `jax.lax`.
    """
    from flax import nnx

    graphdef, treedef, shapes = _structure(config, unet_dtype, unet_precision)
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, [params[name] for name in shapes]))


def shapes(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every weight, by name. Cached on disk, so that the next process need not build the model."""
    kept = kept_results.read("shapes", repr(config))
    if kept is None:
        leaves = _structure(config, None, "highest")[2]
        plain = {name: (leaf.shape, leaf.dtype.name) for name, leaf in leaves.items()}
        kept_results.write("shapes", repr(config), json.dumps(plain).encode())
    else:
        plain = json.loads(kept)
    return {name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in plain.items()}


def prior_arrays(params: Mapping[str, Array]) -> dict:
    """The factorized prior's parameters as NumPy arrays, as `entropy.tables` expects them."""
    prior = "compressor.prior"
    lists = {
        kind: [np.asarray(params[f"{prior}.{kind}.{k}"]) for k in range(count)]
        for kind, count in (("weights", 4), ("biases", 4), ("gains", 3))
    }
    return {**lists, "medians": np.asarray(params[f"{prior}.medians"])}


def hyper_decoder_arrays(params: Mapping[str, Array]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(kernel HWIO, bias) of the hyper decoder's three layers, for `entropy.integer_hyper_decoder`."""
    layer = "compressor.hyper_decoder.convs"
    return [(np.asarray(params[f"{layer}.{k}.kernel"]), np.asarray(params[f"{layer}.{k}.bias"])) for k in range(3)]


def check_same_weights(expected: Mapping, stored: Mapping, origin: str) -> None:
    """Raises BundleError if the names or shapes of weights differ; it names the first one that does.

    Args:
      expected: the model's weights by name; only their shapes are used.
      stored: the weights to check by name; only their shapes are used.
      origin: the name of the file or folder that they come from, for the message.
    """
    for name, leaf in expected.items():
        if name not in stored:
            raise BundleError(f"{origin} lacks the weight {name}.")
        if tuple(stored[name].shape) != tuple(leaf.shape):
            raise BundleError(f"{origin}: the weight {name} has shape {tuple(stored[name].shape)}, not {leaf.shape}.")
    for name in stored:
        if name not in expected:
            raise BundleError(f"{origin} has a weight {name} that the model does not have.")


def nest(flat: Mapping[str, object]) -> dict:
    """{"a.b": x} → {"a": {"b": x}}."""
    tree: dict = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def unnest(tree: Mapping, prefix: str = "") -> dict:
    """{"a": {"b": x}} → {"a.b": x}, the inverse of `nest`."""
    flat = {}
    for key, value in tree.items():
        flat.update(unnest(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def log2_gains(params: Mapping[str, Array]) -> Float[np.ndarray, "anchors c"] | None:
    """log₂ g at every rate anchor; None in a model without the transform."""
    gains = "compressor.transform"
    if f"{gains}.log2_gain" not in params:
        return None
    first = np.asarray(params[f"{gains}.log2_gain"], np.float32)[None]
    if f"{gains}.gain_steps" not in params:
        return first
    growth = exact_math.softplus(np.asarray(params[f"{gains}.gain_steps"], np.float64))
    levels = [first[0].astype(np.float64)]
    for step in growth:  # one by one: NumPy's order of summation is unspecified
        levels.append(levels[-1] + step)
    return np.stack(levels)


def checkerboard_arrays(params: Mapping[str, Array]) -> dict | None:
    """The array arguments of `entropy.integer_export.quantize_checkerboard`; None in a model without checkerboard."""
    board = "compressor.checkerboard"
    if f"{board}.anchors.kernel" not in params:
        return None

    def layer(name: str) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.asarray(params[f"{board}.{name}.{leaf}"]) for leaf in ("kernel", "bias"))

    anchors, anchors_bias = layer("anchors")
    others = {name: layer(name) for name in ("features", "quality", "out")}
    return {"anchors": anchors, "anchors_bias": anchors_bias, **others}


def build_coding(params: Mapping[str, Array]) -> CodingModel:
    """Builds the integer coding model of a model's weights. Raises BundleError like `CodingModel.build`."""
    arrays = prior_arrays(params), hyper_decoder_arrays(params)
    return CodingModel.build(*arrays, log2_gains(params), checkerboard_arrays(params))
