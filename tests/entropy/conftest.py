"""What the tests of the coding side share: weights that are the same on every machine, and CPU settings."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.entropy.coding_model import CodingModel

ROOT = Path(__file__).resolve().parents[2]

_LIST_FEATURES = """
try:
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
except ImportError:
    from numpy.core._multiarray_umath import __cpu_dispatch__, __cpu_features__
print(*[name for name in __cpu_dispatch__ if __cpu_features__.get(name)])
"""
_HASH_OF_EXP = """
import hashlib, numpy as np
print(hashlib.sha256(np.exp(np.linspace(-20, 20, 20001)).tobytes()).hexdigest())
"""


def coding_weights(channels: int, seed: int = 0, *, gain: float = 2.0, spread: float = 1.0):
    """(prior parameters, hyper decoder layers) made of exact float32 operations alone, so equal on every machine.

    `gain` scales the hyper decoder's activations, `spread` the width of z's distribution.
    """
    bits = np.random.PCG64(seed)

    def uniform(*shape: int) -> np.ndarray:
        raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(41)  # 23 bits
        return (raw.astype(np.float32) * np.float32(2.0**-22) - np.float32(1)).reshape(shape)

    def scaled(factor: float, *shape: int) -> np.ndarray:
        return uniform(*shape) * np.float32(factor)

    widths = (1, 3, 3, 3, 1)
    starts = (np.float32(0.2) - np.float32(0.5 * (spread - 1)), np.float32(-0.3), np.float32(-0.3), np.float32(0.4))
    prior = {
        "weights": [starts[k] + scaled(0.1, channels, widths[k], widths[k + 1]) for k in range(4)],
        "biases": [scaled(0.5, channels, widths[k + 1]) for k in range(4)],
        "gains": [scaled(0.5, channels, 3) for _ in range(3)],
        "medians": scaled(0.5, channels),
    }
    size = 2.0 ** -np.ceil(np.log2(np.sqrt(9 * channels)))
    layers = [(scaled(gain * size, 5, 5, channels, channels), scaled(size, channels)) for _ in range(2)]
    layers.append((scaled(gain * size, 3, 3, channels, 2 * channels), scaled(1.0, 2 * channels) + np.float32(0.5)))
    return prior, layers


@pytest.fixture(scope="session", name="coding_weights")
def coding_weights_fixture():
    return coding_weights


@pytest.fixture(scope="session")
def small_model() -> CodingModel:
    return CodingModel.build(*coding_weights(6))


@pytest.fixture(scope="session")
def golden_weights():
    """(prior, layers, arrays) of the original program's random weights, from the folder beside the repository."""
    path = ROOT.parent / "shared" / "golden" / "xparam_dim8.npz"
    if not path.is_file():
        pytest.skip("needs ../shared/golden, the original program's numbers")
    arrays = np.load(path)

    def parameter(name: str) -> np.ndarray:
        return arrays[f"param/context_fn.{name}"]

    prior = {
        "weights": [parameter(f"prior.affine.{k}.weight")[:, 0, 0] for k in range(4)],
        "biases": [parameter(f"prior.affine.{k}.bias")[:, 0, 0, 0] for k in range(4)],
        "gains": [parameter(f"prior.a.{k}")[:, 0, 0, 0] for k in range(3)],
        "medians": parameter("prior._medians").reshape(-1),
    }
    # Transposed convolutions are stored (in, out, kh, kw) and are convolutions: turned round they cross-correlate.
    kernels = [parameter(f"hyper_dec.{i}.0.weight")[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) for i in range(2)]
    kernels.append(parameter("hyper_dec.2.0.weight").transpose(2, 3, 1, 0))
    layers = [(np.ascontiguousarray(kernels[i]), parameter(f"hyper_dec.{i}.0.bias")) for i in range(3)]
    return prior, layers, arrays


@pytest.fixture(scope="session")
def run_under_cpu_settings():
    """run(script, *arguments) -> its output under each setting of NumPy's CPU features that changes np.exp's bits."""

    def run(script: str, *arguments: str, disabled: list[str] | None = None) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        environment.pop("NPY_DISABLE_CPU_FEATURES", None)
        if disabled:
            environment["NPY_DISABLE_CPU_FEATURES"] = " ".join(disabled)
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    features = run(_LIST_FEATURES).split()
    settings = {run(_HASH_OF_EXP, disabled=features[i:]): features[i:] for i in range(len(features), -1, -1)}
    if len(settings) < 2:
        pytest.skip("this machine's CPU features do not change the bits of np.exp")
    return lambda script, *arguments: [run(script, *arguments, disabled=names) for names in settings.values()]
