"""The process keeps freed memory, where the C library can."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys

import pytest

from cdc_jax.runtime.heap import has_only_cpus, keep_freed_memory
from tests.helpers.processes import ROOT

_COUNT_FAULTS = """
import resource, sys
from cdc_jax.runtime.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import numpy as np
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 26, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first, second = faults(), faults()
print(second)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_memory_is_reused_without_page_faults():
    def second_faults(mode):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMPY_MADVISE_HUGEPAGE": "0"}
        environment.pop("GLIBC_TUNABLES", None)
        command = [sys.executable, "-c", _COUNT_FAULTS, mode]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert second_faults("keep") < 1000 < second_faults("return")


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False


@pytest.mark.parametrize(
    "platforms, plugins, expected",
    [("cpu", True, True), ("cuda", False, False), ("tpu,cpu", False, False), ("", False, True), ("", True, False)],
)
def test_accelerators_are_recognized_without_starting_jax(monkeypatch, platforms, plugins, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if plugins else None)
    assert has_only_cpus() is expected
