"""Bundles, images and machines of the tests in this folder, and the files that the machines write."""

import functools
import json
import platform
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.crossplatform.bundles import save_random_bundles
from tests.crossplatform.images import images
from tests.helpers.machines import DEFAULT, SUMMATION, Machine, require_numpy_machines, require_other_python

_WORKER = ("-m", "tests.crossplatform.worker")
_PROCESSES = 2


def _xla(*flags: str) -> dict[str, str]:
    return {"XLA_FLAGS": " ".join(f"--xla_{flag}" for flag in flags)}


def _x86_only(isa: str) -> Machine:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("this processor has no x86 instruction sets to do without")
    return Machine(f"XLA up to {isa}", _xla(f"cpu_max_isa={isa}"))


def _all_changed() -> Machine:
    settings = {**require_numpy_machines()[-1].environment, **_VARIABLES["another order of summation"]}
    flags = ["force_host_platform_device_count=8"]
    if platform.machine().lower() in ("x86_64", "amd64"):
        flags.append("cpu_max_isa=SSE4_2")
    for name in ("one BLAS thread", "x64", "bfloat16 products"):
        settings |= _VARIABLES[name]
    return Machine("all changed", {**settings, **_xla(*flags)})


_VARIABLES = {
    "one BLAS thread": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    "two BLAS threads": {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
    "another order of summation": {SUMMATION: "shuffled"},
    "two devices": _xla("force_host_platform_device_count=2"),
    "eight devices": _xla("force_host_platform_device_count=8"),
    "x64": {"JAX_ENABLE_X64": "1"},
    "bfloat16 products": {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"},
}
_FOUND = {
    "default": lambda: DEFAULT,
    "NumPy without AVX-512": lambda: require_numpy_machines()[1],
    "NumPy without SIMD": lambda: require_numpy_machines()[-1],
    "XLA up to AVX": lambda: _x86_only("AVX"),
    "XLA up to SSE4_2": lambda: _x86_only("SSE4_2"),
    "another Python": require_other_python,
    "all changed": _all_changed,
}
MACHINES = (*_FOUND, *_VARIABLES)
# What decides nothing once NumPy alone is at work; all others matter to a reader without JAX.
NEEDS_JAX = ("XLA up to AVX", "XLA up to SSE4_2", "two devices", "eight devices", "x64", "bfloat16 products")


@functools.cache
def machine(name: str) -> Machine:
    """The machine of this name. Skips the test if it is not available."""
    return _FOUND[name]() if name in _FOUND else Machine(name, _VARIABLES[name])


def run_worker(name: str, task: str, *arguments) -> dict:
    """The report of the worker on a machine."""
    return json.loads(machine(name).run(*_WORKER, task, *arguments).splitlines()[-1])


def in_parallel(function, items: Iterable) -> list:
    """The results of `function`, which waits for processes, in the order of the items."""
    with ThreadPoolExecutor(_PROCESSES) as pool:
        return list(pool.map(function, items))


@pytest.fixture(scope="package")
def bundles(tmp_path_factory, trained_bundle) -> Path:
    """A folder of bundles: five with random weights, and the trained one."""
    folder = tmp_path_factory.mktemp("bundles")
    save_random_bundles(folder)
    shutil.copytree(trained_bundle, folder / "trained")
    return folder


@pytest.fixture(scope="package")
def image_archive(tmp_path_factory) -> Path:
    """All images as one .npz."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, **{f"{i:03}": image for i, image in enumerate(images())})
    return path
