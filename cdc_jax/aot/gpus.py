"""GPUs without GPUs: the descriptions with which XLA's CUDA compiler, part of JAX's CUDA plugin, compiles for them.

The compiler then measures nothing: it takes cuDNN's default algorithms instead of the fastest ones.
"""

from __future__ import annotations

import importlib.metadata

from cdc_jax.errors import CdcError

COMPILER_OPTIONS = {"xla_gpu_autotune_level": 0}  # autotuning needs the device
MEMORY_FRACTION = 0.75  # JAX reserves this much of a GPU's memory for a process (XLA_PYTHON_CLIENT_MEM_FRACTION)

_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")

# The properties that the CUDA driver reports for each device; sizes are in bytes, the bandwidth is in bytes per second.
GPUS = {
    "h100": {
        "gpu_device_info": {
            "cuda_compute_capability": {"major": 9, "minor": 0},
            "core_count": 132,
            "fpus_per_core": 128,
            "clock_rate_ghz": 1.98,
            "device_memory_size": 84_929_347_584,
            "memory_bandwidth": 3_352_320_000_000,
            "l2_cache_size": 52_428_800,
            "shared_memory_per_core": 233_472,
            "shared_memory_per_block": 49_152,
            "shared_memory_per_block_optin": 232_448,
            "registers_per_core_limit": 65_536,
            "registers_per_block_limit": 65_536,
            "threads_per_warp": 32,
            "threads_per_block_limit": 1024,
            "threads_per_core_limit": 2048,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 2**16 - 1,
            "block_dim_limit_z": 2**16 - 1,
        },
        "platform_name": "CUDA",
        "runtime_version": {"major": 12, "minor": 8, "patch": 0},
        "dnn_version_info": {"major": 9, "minor": 8, "patch": 0},
        "device_description_str": "NVIDIA H100 80GB HBM3",
    },
}


def target_config(name: str) -> str:
    """A key of `GPUS` in the form that the compiler reads: XLA's `GpuTargetConfigProto` as text."""
    return _text(GPUS[name])


def available_bytes(name: str) -> int:
    """The memory of the device that JAX uses by default."""
    return int(MEMORY_FRACTION * GPUS[name]["gpu_device_info"]["device_memory_size"])


def plugin_version() -> str:
    """Name and version of the installed CUDA plugin. Raises CdcError if none is installed."""
    for name in _PLUGINS:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    raise CdcError("The CUDA compiler is not installed: pip install '.[cuda]'.")


def _text(fields: dict) -> str:
    parts = []
    for name, value in fields.items():
        if isinstance(value, dict):
            parts.append(f"{name} {{ {_text(value)} }}")
        else:
            parts.append(f'{name}: "{value}"' if isinstance(value, str) else f"{name}: {value}")
    return " ".join(parts)
