"""Stand-ins for other machines: processes in which floating-point arithmetic gives other bits, or whose JAX differs.

Every setting is an environment variable or another interpreter, so it holds for a process of its own: `run` starts it.
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

# Another BLAS kernel sums in another order; tests/helpers/summation.py does so where this variable asks for it.
SUMMATION = "CDC_TEST_SUMMATION"
OTHER_PYTHON = "CDC_OTHER_PYTHON"

# What the machines set, and so must not be inherited. OPENBLAS_CORETYPE stays as it is found.
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
# Metadata first: it is a matter of milliseconds, where importing JAX takes seconds.
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
      name: for messages and test ids.
      environment: variables on top of the inherited ones.
      python: the interpreter.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable

    def run(self, *arguments: str) -> str:
        """Runs `python arguments…` to its end and returns its standard output; what it wrote is in a failure."""
        kept = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_SETTINGS)}
        ours = [str(ROOT)]
        if self.python == sys.executable and "PYTHONPATH" in kept:  # another interpreter has packages of its own
            ours.append(kept["PYTHONPATH"])
        environment = {**kept, **self.environment, "PYTHONPATH": os.pathsep.join(ours)}
        command = [self.python, *map(str, arguments)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        if result.returncode:
            raise AssertionError(f"on the machine {self.name!r}, exit status {result.returncode}:\n{result.stderr}")
        return result.stdout


DEFAULT = Machine("default")


def without_features(*names: str) -> Machine:
    """NumPy without some of its kernels."""
    return Machine("NumPy without " + " ".join(names), {"NPY_DISABLE_CPU_FEATURES": " ".join(names)})


@functools.cache
def numpy_machines() -> tuple[Machine, ...]:
    """The default, then NumPy with ever fewer of its kernels, each with other bits of np.exp (float64 or float32).

    They are named by NumPy's own list, since it ignores names that it does not know.
    """
    features = DEFAULT.run("-c", _LIST_FEATURES).split()
    candidates = [DEFAULT] + [without_features(*features[i:]) for i in range(len(features) - 1, -1, -1)]
    # Of settings with the same bits the one that disables most comes last, and is taken.
    by_bits = {machine.run("-c", _HASH_OF_EXP): machine for machine in candidates}
    default_bits = DEFAULT.run("-c", _HASH_OF_EXP)
    return (DEFAULT, *(machine for bits, machine in by_bits.items() if bits != default_bits))


@functools.cache
def _runs(python: str) -> str | None:
    """Which versions an interpreter has; None where it does not run or lacks a package."""
    try:
        result = subprocess.run([python, "-c", _HAS_PACKAGES], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


@functools.cache
def other_python() -> Machine | None:
    """An interpreter with another Python, JAX or NumPy than this one's, found by running it; None: there is none."""
    named = os.environ.get(OTHER_PYTHON)
    candidates = [named] if named else [f"python3.{minor}" for minor in (11, 12, 13)] + ["python3"]
    here = _runs(sys.executable)
    for python in candidates:
        version = _runs(python)
        if version is not None and version != here:
            return Machine(f"Python {version}", python=python)
    return None


def require_numpy_machines() -> tuple[Machine, ...]:
    """`numpy_machines`, or the test is skipped where they are all one."""
    machines = numpy_machines()
    if len(machines) < 2:
        pytest.skip("this machine's CPU features do not change the bits of np.exp")
    return machines


def require_other_python() -> Machine:
    """`other_python`, or the test is skipped."""
    machine = other_python()
    if machine is None:
        pytest.skip(f"no Python with other versions of the packages was found; {OTHER_PYTHON} may name one")
    return machine
