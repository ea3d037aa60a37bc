"""Converts the authors' released PyTorch checkpoints to bundles.

A checkpoint names its weights after the attributes of the original implementation. `torch_modules` maps our modules to
theirs, and `_convert` reorders the axes. The tensors' names and shapes determine variant and width. PyTorch is not
needed, and nothing is unpickled (`io.torch_file`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cdc_jax.codec.bundle import save_bundle
from cdc_jax.errors import CheckpointError
from cdc_jax.io import hub
from cdc_jax.io.torch_file import read_torch_file
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import shapes, transposed_convolutions

LPIPS_PREFIX = "loss_fn_vgg."
_WIDTH_WEIGHT = "denoise_fn.final_conv.1.weight"  # (3, d, 7, 7)
_DOWN_WEIGHT = {"x": "context_fn.enc.0.1.conv.weight", "epsilon": "context_fn.enc.0.2.conv.weight"}

_RESNET_BLOCK = {
    "block1.conv": "block1.block.0",
    "block1.norm": "block1.block.1",
    "block2.conv": "block2.block.0",
    "block2.norm": "block2.block.1",
    "time": "mlp.1",
    "skip": "res_conv",
}
_ATTENTION = {"norm": "fn.norm", "qkv": "fn.fn.to_qkv", "out": "fn.fn.to_out"}


def torch_modules(prediction: str) -> dict[str, str]:
    """Maps our modules' names to theirs. Includes a skip for every block, although some blocks have none."""
    modules: dict[str, str] = {}

    def add(ours: str, theirs: str, inside: Mapping[str, str] | None = None):
        if inside is None:
            modules[ours] = theirs
        else:
            modules.update({f"{ours}.{a}": f"{theirs}.{b}" for a, b in inside.items()})

    resize = 2 if prediction == "epsilon" else 1  # epsilon checkpoints have an empty module before it
    for i in range(4):
        for ours, theirs, change in (("encoder", "enc", "downs"), ("context_decoder", "dec", "ups")):
            add(f"compressor.{ours}.blocks.{i}", f"context_fn.{theirs}.{i}.0", _RESNET_BLOCK)
            add(f"compressor.{ours}.{change}.{i}", f"context_fn.{theirs}.{i}.{resize}.conv")
    for i in range(3):
        add(f"compressor.hyper_encoder.convs.{i}", f"context_fn.hyper_enc.{i}.0")
        add(f"compressor.hyper_decoder.convs.{i}", f"context_fn.hyper_dec.{i}.0")
    for side, levels in (("downs", 6), ("ups", 5)):
        for i in range(levels):
            ours, theirs = f"unet.{side}.{i}", f"denoise_fn.{side}.{i}"
            add(f"{ours}.block1", f"{theirs}.0", _RESNET_BLOCK)
            add(f"{ours}.block2", f"{theirs}.1", _RESNET_BLOCK)
            add(f"{ours}.attention", f"{theirs}.2", _ATTENTION)
            add(f"{ours}.resize", f"{theirs}.3.conv")
    add("unet.middle.0", "denoise_fn.mid_block1", _RESNET_BLOCK)
    add("unet.middle.1", "denoise_fn.mid_block2", _RESNET_BLOCK)
    add("unet.middle_attention", "denoise_fn.mid_attn", _ATTENTION)
    add("unet.time_embedding.first", "denoise_fn.time_mlp.0")
    add("unet.time_embedding.second", "denoise_fn.time_mlp.2")
    add("unet.final_norm", "denoise_fn.final_conv.0")
    add("unet.final_conv", "denoise_fn.final_conv.1")
    return modules


def torch_name(name: str, modules: Mapping[str, str]) -> str:
    """The checkpoint's name for our weight `name`. `modules` is `torch_modules`' result."""
    prior = "compressor.prior."
    if name.startswith(prior):
        kind, _, layer = name.removeprefix(prior).partition(".")
        theirs = {"weights": "affine.{}.weight", "biases": "affine.{}.bias", "gains": "a.{}", "medians": "_medians"}
        return "context_fn.prior." + theirs[kind].format(layer)
    module, leaf = name.rsplit(".", 1)
    if module.endswith("norm"):
        return f"{modules[module]}.{'g' if leaf == 'scale' else 'b'}"
    return f"{modules[module]}.{'weight' if leaf == 'kernel' else leaf}"


def _convert(
    name: str, tensor: Float[np.ndarray, "..."], shape: tuple[int, ...], transposed: bool
) -> Float[np.ndarray, "..."] | None:
    """The tensor in our layout, or None if its shape does not fit."""
    if name.endswith("kernel") and tensor.ndim == 4:
        if transposed:  # (in, out, kh, kw), a true convolution: flip it into a cross-correlation
            tensor = tensor[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
        else:  # (out, in, kh, kw)
            tensor = tensor.transpose(2, 3, 1, 0)
    elif name.endswith("kernel") and tensor.ndim == 2:
        tensor = tensor.T
    else:  # (1, c, 1, 1) norms and medians; (c, 1, 1, in, out) prior
        squeezed = tuple(n for n in tensor.shape if n != 1)
        if squeezed == tuple(n for n in shape if n != 1):
            tensor = tensor.reshape(shape)
    return np.ascontiguousarray(tensor, np.float32) if tensor.shape == tuple(shape) else None


def config_of(tensors: Mapping[str, Float[np.ndarray, "..."]]) -> ModelConfig:
    """The settings of a checkpoint's model: variant and width.

    Raises:
      CheckpointError: the tensors are not those of a CDC model.
    """
    predictions = [prediction for prediction, weight in _DOWN_WEIGHT.items() if weight in tensors]
    if not predictions:
        raise CheckpointError(
            f"This is not a CDC checkpoint: it has neither {_DOWN_WEIGHT['x']} nor {_DOWN_WEIGHT['epsilon']}."
        )
    if _WIDTH_WEIGHT not in tensors:
        raise CheckpointError(f"The checkpoint lacks the weight {_WIDTH_WEIGHT}.")
    shape = tensors[_WIDTH_WEIGHT].shape
    if len(shape) != 4 or 0 in shape:
        raise CheckpointError(f"The weight {_WIDTH_WEIGHT} has shape {shape}; it should be (3, width, 7, 7).")
    return ModelConfig(prediction=predictions[0], width=shape[1])


def convert_tensors(tensors: Mapping[str, Float[np.ndarray, "..."]], config: ModelConfig) -> dict[str, np.ndarray]:
    """Converts a checkpoint's tensors to all weights of a model, float32, by our dotted names.

    Raises:
      CheckpointError: a weight is missing, has another shape, or is not finite; the message names it.
    """
    modules, transposed = torch_modules(config.prediction), transposed_convolutions(config)
    params = {}
    for name, leaf in shapes(config).items():
        theirs = torch_name(name, modules)
        if theirs not in tensors:
            raise CheckpointError(f"The checkpoint lacks the weight {theirs}.")
        converted = _convert(name, tensors[theirs], leaf.shape, name.removesuffix(".kernel") in transposed)
        if converted is None:
            raise CheckpointError(
                f"The weight {theirs} has shape {tensors[theirs].shape}, which does not fit {name} {leaf.shape} "
                f"of a {config.prediction} model of width {config.width}."
            )
        if not np.isfinite(converted).all():
            raise CheckpointError(f"The weight {theirs} holds values that are not finite.")
        params[name] = converted
    return params


def read_checkpoint(path: str | Path) -> dict[str, Float[np.ndarray, "..."]]:
    """Reads the tensors of a released checkpoint: the moving average if there is one (x), otherwise the weights.

    Raises:
      CheckpointError: the file cannot be read, or does not have the layout of a released checkpoint.
    """

    def weights(loaded: Mapping) -> Mapping:
        for part in ("model", "ema"):
            if not isinstance(loaded.get(part, {} if part == "ema" else None), Mapping):
                raise CheckpointError(f"{path} is not a CDC checkpoint: it has no entry {part!r} that holds weights.")
        if "ema" not in loaded:
            return loaded["model"]
        prefix = "ema_model."
        return {k.removeprefix(prefix): v for k, v in loaded["ema"].items() if str(k).startswith(prefix)}

    return read_torch_file(path, weights)


def import_torch(checkpoint: str | Path, out_dir: str | Path, *, overwrite: bool = False) -> None:
    """Converts a released checkpoint to a bundle. Stores its LPIPS network, if it has one, as `lpips_vgg.npz`.

    Args:
      checkpoint: the `.pt` file, or its name on the hub, hf://OWNER/REPO[@REVISION]/FILE.
      out_dir: the bundle's folder, or its name on the hub.
      overwrite: replace an existing bundle.

    Raises:
      CheckpointError: the file is not a complete CDC checkpoint (the message names the weight at fault), or cannot be
        downloaded.
      BundleError: the bundle cannot be written or uploaded.
    """
    tensors = read_checkpoint(hub.fetch_file(checkpoint) if hub.is_hub_name(checkpoint) else checkpoint)
    config = config_of(tensors)
    params = convert_tensors(tensors, config)
    lpips = {k.removeprefix(LPIPS_PREFIX): v for k, v in tensors.items() if k.startswith(LPIPS_PREFIX)}
    card = (
        f"Imported from the PyTorch checkpoint `{Path(checkpoint).name}` of the original implementation "
        f"(Yang & Mandt, NeurIPS 2023); its license and training data are the original's."
    )
    save_bundle(out_dir, config, params, provenance=card, lpips=lpips or None, overwrite=overwrite)
