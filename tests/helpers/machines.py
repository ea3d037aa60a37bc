"""Simulates other machines: processes whose floating-point arithmetic gives other bits, or whose JAX differs.

Every setting is an environment variable or another interpreter, so it needs a separate process, which `run` starts.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 900

# Another BLAS kernel sums in another order. With this variable, tests/helpers/summation.py does too.
SUMMATION = "CDC_TEST_SUMMATION"
OTHER_PYTHON = "CDC_OTHER_PYTHON"

# Variables that the machines set, and must not inherit. OPENBLAS_CORETYPE is inherited.
_SETTINGS = ("NPY_", "XLA_FLAGS", "JAX_", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", SUMMATION)
_KEPT = ("JAX_PLATFORMS",)

_LIST_FEATURES = """
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
print(*[name for name in __cpu_dispatch__ if __cpu_features__.get(name)])
"""
_HASH_OF_EXP = """
import hashlib, numpy as np
x = np.linspace(-20, 20, 20001)
print(hashlib.sha256(np.exp(x).tobytes() + np.exp(x.astype(np.float32)).tobytes()).hexdigest())
"""
# Reads the metadata of packages in milliseconds, since importing JAX takes seconds.
_HAS_PACKAGES = """
import sys
from importlib.metadata import version
for name in ("flax", "orbax-checkpoint", "safetensors", "constriction", "pillow", "jaxtyping"):
    version(name)
import numpy
assert sys.version_info >= (3, 11)
print(sys.version_info[:2], version("jax"), numpy.__version__)
"""


@dataclass(frozen=True)
class Machine:
    """One way to run Python.

    Attributes:
      name: the name in messages and test ids.
      environment: variables in addition to the inherited ones.
      python: the interpreter.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable

    def run(self, *arguments: str) -> str:
        """Runs `python arguments…` and returns its standard output. A failure shows what it wrote."""
        kept = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_SETTINGS)}
        ours = [str(ROOT)]
        if self.python == sys.executable and "PYTHONPATH" in kept:  # another interpreter has its own packages
            ours.append(kept["PYTHONPATH"])
        environment = {**kept, **self.environment, "PYTHONPATH": os.pathsep.join(ours)}
        command = [self.python, *map(str, arguments)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        if result.returncode:
            raise AssertionError(f"on the machine {self.name!r}, exit status {result.returncode}:\n{result.stderr}")
        return result.stdout


DEFAULT = Machine("default")


def without_features(*names: str) -> Machine:
    """NumPy without the kernels for these CPU features."""
    return Machine("NumPy without " + " ".join(names), {"NPY_DISABLE_CPU_FEATURES": " ".join(names)})


@functools.cache
def numpy_machines() -> tuple[Machine, ...]:
    """The default, then NumPy with fewer and fewer kernels, each with other bits of np.exp (float64 or float32).

    They are named by NumPy's own list, since it ignores names that it does not know.
    """
    features = DEFAULT.run("-c", _LIST_FEATURES).split()
    candidates = [DEFAULT] + [without_features(*features[i:]) for i in range(len(features) - 1, -1, -1)]
    # Of settings with the same bits, the last one is kept, which disables most.
    by_bits = {machine.run("-c", _HASH_OF_EXP): machine for machine in candidates}
    default_bits = DEFAULT.run("-c", _HASH_OF_EXP)
    return (DEFAULT, *(machine for bits, machine in by_bits.items() if bits != default_bits))


@functools.cache
def _runs(python: str) -> str | None:
    """The versions that an interpreter has; None if it does not run or lacks a package."""
    try:
        result = subprocess.run([python, "-c", _HAS_PACKAGES], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


@functools.cache
def other_python() -> Machine | None:
    """An interpreter with another Python, JAX or NumPy than this one, found by running candidates, or None."""
    named = os.environ.get(OTHER_PYTHON)
    candidates = [named] if named else [f"python3.{minor}" for minor in (11, 12, 13)] + ["python3"]
    here = _runs(sys.executable)
    for python in candidates:
        version = _runs(python)
        if version is not None and version != here:
            return Machine(f"Python {version}", python=python)
    return None


def require_numpy_machines() -> tuple[Machine, ...]:
    """`numpy_machines`. Skips the test if there is only one."""
    machines = numpy_machines()
    if len(machines) < 2:
        pytest.skip("this machine's CPU features do not change the bits of np.exp")
    return machines


def require_other_python() -> Machine:
    """`other_python`. Skips the test if there is none."""
    machine = other_python()
    if machine is None:
        pytest.skip(f"no Python with other versions of the packages was found; {OTHER_PYTHON} may name one")
    return machine
