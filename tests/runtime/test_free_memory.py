"""Limits on memory: found out before they are met, and said in one line with the need."""

import ctypes
import math
import subprocess
import sys

import pytest

from cdc_jax.errors import CdcError, OutOfMemoryError, is_out_of_memory
from cdc_jax.runtime import free_memory
from cdc_jax.runtime.free_memory import (
    enough_memory,
    free_address_bytes,
    free_bytes,
    release_unused,
    total_bytes,
    used_bytes,
)
from tests.helpers.processes import user_environment

MIB = 1 << 20
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's description of the process")


def test_what_is_known_of_this_process():
    assert free_address_bytes() > 100 * MIB
    assert total_bytes() > 100 * MIB
    assert 0 <= used_bytes() < total_bytes()
    assert 10 * MIB < free_bytes() <= total_bytes()


@LINUX
def test_freed_memory_returns_to_the_system():
    """The last buffer keeps the C library from shrinking its heap, so that nothing returns by itself."""
    *buffers, last = [bytearray(b"x" * 100_000) for _ in range(1000)]
    buffers.clear()
    before = used_bytes()
    release_unused()
    assert used_bytes() < before - 60 * MIB and len(last) == 100_000


def test_nothing_to_release_elsewhere(monkeypatch):
    """A C library without malloc_trim, and a system without one to ask."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    release_unused()
    monkeypatch.setattr(free_memory.os, "name", "nt")
    monkeypatch.setattr(ctypes, "CDLL", None)
    release_unused()


def test_the_scarcest_memory_limits_what_is_free(limits, monkeypatch, tmp_path):
    """Of the address space, the machine and the container, whose files are numbers of bytes or "max"."""
    limit, usage = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(free_memory, "_CGROUP_LIMITS", (str(limit),))
    monkeypatch.setattr(free_memory, "_CGROUP_USAGES", (str(usage),))
    limits(8 * MIB)
    assert free_bytes() == 8 * MIB
    limit.write_text("max"), usage.write_text(f"{2 * MIB}")
    assert free_bytes() == 8 * MIB
    limit.write_text(f"{5 * MIB}")
    assert free_bytes() == 3 * MIB
    limit.write_text(f"{MIB}")
    assert free_bytes() == 0


@LINUX
def test_the_limit_on_the_address_space():
    """In a process of its own: a limit cannot be raised again."""
    code = "from cdc_jax.runtime.free_memory import *; print(free_address_bytes()); require_libraries()"
    command = ["bash", "-c", f"ulimit -v 500000; exec {sys.executable} -c '{code}'"]
    done = subprocess.run(command, env=user_environment(), capture_output=True, text=True)
    assert 300 * MIB < float(done.stdout) < 500_000 * 1024
    assert "OutOfMemoryError: JAX takes about" in done.stderr and "raise the limit (ulimit -v)." in done.stderr


@pytest.fixture
def limits(monkeypatch):
    """limits(free address space, memory of the machine)."""

    def set_limits(free: float, total: float = math.inf) -> None:
        monkeypatch.setattr(free_memory, "free_address_bytes", lambda: free)
        monkeypatch.setattr(free_memory, "total_bytes", lambda: total)

    return set_limits


def refused(**least: float) -> str:
    with pytest.raises(OutOfMemoryError) as raised, enough_memory("Decoding 3x4 pixels", 30 * MIB, **least):
        raise AssertionError("the block was entered")
    assert isinstance(raised.value, CdcError) and isinstance(raised.value, MemoryError)
    return str(raised.value)


def test_what_does_not_fit_is_not_tried(limits):
    limits(20 * MIB)
    assert refused(least_more=21 * MIB) == (
        "Decoding 3x4 pixels takes about 30 MiB, and the process may have 20 MiB more of address space: raise the "
        "limit (ulimit -v)."
    )
    limits(math.inf, 20 * MIB)
    assert "about 30 MiB, more than the 20 MiB of this machine or container" in refused(least_whole=21 * MIB)


def test_what_may_fit_is_tried(limits):
    limits(20 * MIB, 20 * MIB)
    with enough_memory("Decoding", 30 * MIB, least_more=20 * MIB, least_whole=20 * MIB):
        pass


FAILURES = [
    MemoryError(),
    MemoryError("std::bad_alloc"),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes."),
    OSError(12, "Cannot allocate memory"),
    ImportError("x.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_what_runs_out_of_memory(failure):
    assert is_out_of_memory(failure)
    with pytest.raises(OutOfMemoryError, match="not enough memory: Decoding takes about 30 MiB; ") as raised:
        with enough_memory("Decoding", 30 * MIB):
            raise failure
    assert "\n" not in str(raised.value)
    wrapped = ValueError("the file is corrupt")
    wrapped.__cause__ = failure
    assert is_out_of_memory(wrapped)


def test_other_errors_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), enough_memory("Decoding", 30 * MIB):
        raise ZeroDivisionError("28 bytes")
    loop = ValueError()
    loop.__cause__ = loop
    assert not is_out_of_memory(loop) and not is_out_of_memory(OSError(2, "No such file"))
