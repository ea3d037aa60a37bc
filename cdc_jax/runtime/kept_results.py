"""Results that a process keeps on disk for the next one, each under a key of everything that it depends on.

A key covers the arguments of `read` and `write`, this package's source, the versions of the libraries that trace and
compile programs, the environment variables that they read, the processors and the device. A result is therefore never
used after anything that it depends on has changed. An entry starts with the SHA-256 of its contents: a damaged entry
counts as missing, and is written again.

Results are kept only after `enable` is called, which only the command `cdc` does: other programs may change JAX's
settings later, and the key would not reflect that.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from cdc_jax.io.files import write_atomically

SUFFIX = ".kept"
_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = ("jax", "jaxlib", "flax", "numpy")
_VARIABLES = ("JAX_", "XLA_", "TF_", "LIBTPU_", "CUDA_", "NVIDIA_")  # prefixes of their names
_DIGEST_BYTES = 32

_folder: Path | None = None
_environment = b""


def enable(folder: Path | None) -> None:
    """Keeps results in an existing folder from now on. None turns this off."""
    global _folder, _environment
    _environment = b"" if folder is None else _describe_environment()
    _folder = folder if _environment else None


def is_enabled() -> bool:
    """Whether results are kept."""
    return _folder is not None


def read(name: str, key: str) -> bytes | None:
    """The result kept under this name and key; None if there is none or it is damaged."""
    if _folder is None:
        return None
    try:
        entry = _path(_folder, name, key).read_bytes()
    except OSError:
        return None
    digest, data = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == digest else None


def write(name: str, key: str, data: bytes) -> None:
    """Keeps a result. If it cannot be written, the next process computes it again.

    Args:
      name: the beginning of the file's name.
      key: what the result depends on, in addition to what all keys cover.
      data: the result.
    """
    if _folder is None:
        return
    try:
        write_atomically(_path(_folder, name, key), hashlib.sha256(data).digest() + data)
    except OSError:  # such as a full disk
        pass


def _path(folder: Path, name: str, key: str) -> Path:
    return folder / f"{name}-{hashlib.sha256(_environment + key.encode()).hexdigest()[:32]}{SUFFIX}"


def _describe_environment() -> bytes:
    """A digest of what all results depend on; empty if it cannot be determined."""
    import jax

    try:
        versions = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
        sources = [path.read_bytes() for path in sorted(_PACKAGE.rglob("*.py"))]
    except (OSError, metadata.PackageNotFoundError):
        return b""
    variables = sorted(item for item in os.environ.items() if item[0].startswith(_VARIABLES))
    device = jax.local_devices()[0]
    facts = [sys.version, versions, variables, device.platform, device.device_kind, _processors(), _instructions()]
    digest = hashlib.sha256("\n".join(map(repr, facts)).encode())
    for source in sources:
        digest.update(hashlib.sha256(source).digest())
    return digest.digest()


def _processors() -> int | None:
    """The number of processors that this process may use, among which XLA divides a program's work."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _instructions() -> str:
    """The processor's instruction set: where machines share the folder, other instructions would crash the process."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    listed = (line for line in lines if line.startswith(("flags", "Features")))  # x86, Arm
    return next(listed, f"{platform.machine()} {platform.processor()}")
