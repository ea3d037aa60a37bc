"""Child processes that tests start."""

from __future__ import annotations

import os
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Without LLVM's optimizations and with XLA's older emitters of loops, a U-Net's gradient compiles five times as fast.
FAST_COMPILE_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def free_address() -> str:
    """An address host:port with a free port, where processes of this machine can connect."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def fast_environment(**changes: str) -> dict[str, str]:
    """`user_environment` with the tests' compiler flags: for short training runs, which mostly compile."""
    environment = user_environment(**changes)
    return environment | {"XLA_FLAGS": f"{environment['XLA_FLAGS']} {FAST_COMPILE_FLAGS}".strip()}


def user_environment(**changes: str) -> dict[str, str]:
    """A user's environment: this process's, without the tests' compiler flags, and with the package on the path."""
    flags = os.environ.get("XLA_FLAGS", "").replace(FAST_COMPILE_FLAGS, "").strip()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "TQDM_DISABLE": "1", **changes}
