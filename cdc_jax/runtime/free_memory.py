"""How much more memory this process may take, according to its limits; and giving it back. Standard library only.

Limits that end a process without a message are checked before memory is requested: the address space (`ulimit -v`),
beyond which XLA and its libraries abort, and the memory of the machine or container, beyond which the kernel kills the
process.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdc_jax.errors import OutOfMemoryError, is_out_of_memory

_MIB = 1 << 20
_LIBRARY_BYTES, _CORE_BYTES = 1400 * _MIB, 16 * _MIB  # address space that JAX and its threads take, measured
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CGROUP_USAGES = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
_ADVICE = "raise the limit (ulimit -v)"


def free_address_bytes() -> float:
    """The address space that this process may still map; infinity without a limit."""
    try:
        import resource
    except ImportError:  # not on Windows
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit - _status_bytes("VmSize")


@functools.cache
def total_bytes() -> float:
    """The memory of the machine, or of the container that this process is in; infinity if unknown."""
    totals = [_number_in(path) for path in _CGROUP_LIMITS]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        totals.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min([total for total in totals if total is not None and total > 0], default=math.inf)


def free_bytes() -> float:
    """The memory that this process could take without swapping; infinity if unknown.

    It is limited by the machine, the container and the address space.
    """
    free = [free_address_bytes(), total_bytes()]
    available = _status_bytes("MemAvailable", "/proc/meminfo")
    if available:
        free.append(available)
    for limit, usage in zip(_CGROUP_LIMITS, _CGROUP_USAGES, strict=True):
        known = _number_in(limit), _number_in(usage)
        if None not in known:
            free.append(known[0] - known[1])
    return max(0, min(free))


def used_bytes() -> int:
    """The memory that this process uses now; 0 if unknown."""
    return _status_bytes("VmRSS")


def release_unused() -> None:
    """Returns freed memory, such as the compiler's, to the system. Only glibc keeps any; elsewhere, does nothing."""
    if os.name == "posix":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def require_libraries() -> None:
    """Raises OutOfMemoryError if JAX is not imported yet and would not fit into the address space."""
    import sys

    needed = _LIBRARY_BYTES + _CORE_BYTES * (os.cpu_count() or 1)
    if "jax" not in sys.modules and free_address_bytes() < needed:
        raise OutOfMemoryError(_sentence("JAX", needed))


@contextmanager
def enough_memory(what: str, about_bytes: float, *, least_more: float = 0, least_whole: float = 0) -> Iterator[None]:
    """Raises a one-line error, which states how much is needed, if a `with` block lacks memory.

    Args:
      what: subject of the sentence, such as "Decoding 100x200 pixels".
      about_bytes: estimate of the memory that the block takes, for the message.
      least_more: the least address space, in bytes, that the block takes in addition to what the process has.
      least_whole: the least number of bytes that the process then uses.

    Raises:
      OutOfMemoryError: a limit is below these numbers, before the block; or the block ran out of memory.
    """
    if least_more > 0 and free_address_bytes() < least_more:
        raise OutOfMemoryError(_sentence(what, about_bytes))
    if total_bytes() < least_whole:
        text = f"{what} takes about {_mib(about_bytes)} MiB, more than the {_mib(total_bytes())} MiB of this machine"
        raise OutOfMemoryError(f"{text} or container: give it more, or a smaller image.")
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        need = f"{what} takes about {_mib(about_bytes)} MiB"
        raise OutOfMemoryError(f"There is not enough memory: {need}; {_ADVICE}, or free some.") from error


def _sentence(what: str, about_bytes: float) -> str:
    left = f"the process may have {_mib(free_address_bytes())} MiB more of address space"
    return f"{what} takes about {_mib(about_bytes)} MiB, and {left}: {_ADVICE}."


def _mib(num_bytes: float) -> int:
    return max(0, math.ceil(num_bytes / _MIB))


def _status_bytes(field: str, path: str = "/proc/self/status") -> int:
    """A field of Linux's description of this process, or of the machine; 0 elsewhere."""
    try:
        match = re.search(rf"^{field}:\s+(\d+) kB", Path(path).read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def _number_in(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # there is no such file, or it contains "max"
        return None
