"""Keeps freed memory in the process, for programs that allocate the same large buffers again and again.

A training step on a CPU needs hundreds of megabytes of temporary memory, which XLA allocates and frees in every step.
The C library returns them to the system, which clears every page again when the next step touches it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def has_only_cpus() -> bool:
    """Whether JAX will run on CPUs, without starting it: they are named, or no accelerator's plugin is installed."""
    named = os.environ.get("JAX_PLATFORMS")
    return named == "cpu" if named else not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))


def keep_freed_memory() -> bool:
    """Lets the C library keep freed memory for later allocations. Call it before threads allocate memory.

    Returns:
      Whether the C library has these settings: glibc (Linux) does, others are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # One heap, which only grows, and from which large buffers are taken too.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return all(mallopt(parameter, value) for parameter, value in settings)
