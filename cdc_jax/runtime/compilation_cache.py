"""JAX's persistent compilation cache, so that a second `cdc decompress` of the same image size does not compile again.

The cache is in `cdc_jax` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`; `%LOCALAPPDATA%` on Windows).
`CDC_JAX_CACHE` names another folder; `CDC_JAX_CACHE=off` turns the cache off. JAX's cache key of a program depends on
the program, the compiler and its options. A program compiled for CPUs also depends on the processor, so each kind of
processor has a subfolder. If the folder cannot be written, programs are not cached.

JAX's own limit, `jax_compilation_cache_max_size`, needs filelock, and fails if the folder contains an entry that was
written without the limit. So we prune the folder ourselves when the cache is turned on.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import sys
import warnings
from pathlib import Path

VARIABLE = "CDC_JAX_CACHE"
MAX_BYTES = 1 << 30  # the folder is pruned to this size when the cache is turned on
_MIN_COMPILE_SECONDS = 0.2  # programs that compile faster are not cached


def enable() -> Path | None:
    """Turns the cache on for this process.

    Does nothing if the user has chosen another cache (`JAX_COMPILATION_CACHE_DIR`) or turned this one off, or if the
    folder cannot be written.

    Returns:
      The cache's folder; None if this call did nothing.
    """
    import jax

    folder = usable_folder()
    if folder is None:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    _forget_what_cannot_be_read(folder)
    return folder


def usable_folder() -> Path | None:
    """The cache's folder, which exists and is pruned; None if `enable` does nothing."""
    import jax

    folder = cache_folder()
    if folder is None or jax.config.jax_compilation_cache_dir or not _is_usable(folder):
        return None
    prune(folder, MAX_BYTES)
    return folder


def cache_root() -> Path | None:
    """The folder of all our caches, which may not exist yet; None if caching is turned off."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() in ("off", "0", "none"):
        return None
    if chosen:
        return Path(chosen)
    home = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        return Path(home or Path.home() / ".cache") / "cdc_jax"
    except RuntimeError:  # a user without a home directory
        return None


def cache_folder() -> Path | None:
    """The folder of programs compiled for this kind of processor; None if caching is turned off."""
    root = cache_root()
    return None if root is None else root / _processor()


def _forget_what_cannot_be_read(folder: Path) -> None:
    """Empties the folder when JAX warns that it cannot read an entry, so that the entry can be written again.

    After an interrupted process left an incomplete entry, JAX would otherwise warn and compile every time.
    """
    show = warnings.showwarning

    def showwarning(message, *args, **kwargs):
        if str(message).startswith("Error reading persistent compilation cache entry"):
            prune(folder, 0)
        else:
            show(message, *args, **kwargs)

    warnings.showwarning = showwarning


def prune(folder: Path, max_bytes: int) -> None:
    """Deletes the oldest files of the folder until at most `max_bytes` are left."""
    try:
        files = [(entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(folder)]
        excess = sum(size for _, size, _ in files) - max_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            os.remove(path)
            excess -= size
    except OSError:  # another process is deleting files as well
        return


def _processor() -> str:
    """A folder name for this kind of processor, since programs may use all of its instructions."""
    facts = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for key in ("model name", "flags", "Features"):  # "Features": on ARM
        facts += [next((line for line in lines if line.startswith(key)), "")]
    return "programs-" + hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _is_usable(folder: Path) -> bool:
    """Whether files can be written to the folder. Tries it, since permissions are unreliable on some file systems."""
    probe = folder / f".probe-{secrets.token_hex(6)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"cdc_jax")
        probe.unlink()
    except OSError:
        return False
    return True
