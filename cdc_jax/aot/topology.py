"""Topologies without their devices: the chips that a compiler can compile for, and their available memory.

`libtpu` contains the compiler. Compiling uses no chip, so several processes may compile at the same time, even during a
training run. We therefore do not take libtpu's lock, which protects the chips. `ALLOW_MULTIPLE_LIBTPU_LOAD=0` in the
environment makes libtpu take it.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cdc_jax.aot import gpus
from cdc_jax.errors import CdcError, ConfigError

LOCK_VARIABLE = "ALLOW_MULTIPLE_LIBTPU_LOAD"
GIB = 2**30

# GiB of high-bandwidth memory per device that a program may use: the "available HBM" in the messages with which libtpu
# 0.0.52 refuses a program (a test compares them). The chips have 16, 32, 32, 16, 95 and 32 GB
# (https://cloud.google.com/tpu/docs, "TPU versions"). v2 and v3 have two cores, each a device with half of the memory;
# v4's two cores are one device ("megacore").
AVAILABLE_HBM_GIB = {"v2": 7.48, "v3": 15.48, "v4": 30.75, "v5e": 15.75, "v5p": 95.73, "v6e": 31.24}

# Keeps libtpu from querying the machine, which is not a TPU VM, and from logging errors about it.
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
}


class Topology(NamedTuple):
    """A slice of a TPU pod, or GPUs.

    Attributes:
      name: the name, such as `v5e:16x16` or `h100:8`.
      devices: abstract devices, for a mesh to compile with; nothing can run on them.
      available_bytes: memory per device for arguments, outputs, temporaries and code; None if it is unknown.
      platform: "tpu" or "cuda".
      compiler: name and version of the compiler.
      compiler_options: settings that it needs.
    """

    name: str
    devices: Sequence
    available_bytes: int | None
    platform: str = "tpu"
    compiler: str = ""
    compiler_options: Mapping[str, int] | None = None


def libtpu_version() -> str:
    """The version of the installed libtpu. Raises CdcError if it is not installed."""
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError as error:
        raise CdcError("The TPU compiler (libtpu) is not installed: pip install '.[tpu]'.") from error


def open_topology(name: str) -> Topology:
    """Opens a topology by its name, such as `v5e:2x4`, `v4:2x2x2`, `v6e:16x16`, or `h100:8` for a host with 8 GPUs.

    Raises:
      ConfigError: there is no such topology.
      CdcError: the compiler is not installed.
    """
    generation = name.partition(":")[0]
    if not re.fullmatch(r"\w+:\d+(x\d+)*", name):
        raise ConfigError(f"The topology {name!r} is not of the form GENERATION:SHAPE, for instance v5e:16x16.")
    return _open_gpus(name) if generation in gpus.GPUS else _open_tpus(name)


def _open_tpus(name: str) -> Topology:
    generation = name.partition(":")[0]
    version = libtpu_version()
    for variable, value in {**_QUIET, LOCK_VARIABLE: "1"}.items():
        os.environ.setdefault(variable, value)
    options = {"chip_config_name": "megacore"} if generation == "v4" else {}
    devices = _devices(name, platform="tpu", topology_name=name, **options)
    gib = AVAILABLE_HBM_GIB.get(generation)
    return Topology(name, devices, None if gib is None else int(gib * GIB), compiler=f"libtpu {version}")


def _open_gpus(name: str) -> Topology:
    generation, _, shape = name.partition(":")
    version = gpus.plugin_version()
    if shape.count("x") > 1:
        raise ConfigError(f"The topology {name!r} is not of the form {generation}:GPUS or {generation}:HOSTSxGPUS.")
    sizes = "x".join(["1", "1", *shape.split("x")][-3:])  # of slices, hosts, and devices per host
    devices = _devices(name, platform="cuda", target_config=gpus.target_config(generation), topology=sizes)
    options = gpus.COMPILER_OPTIONS
    return Topology(name, devices, gpus.available_bytes(generation), "cuda", version, options)


def _devices(name: str, **description) -> Sequence:
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")  # never claim a chip that this machine may have
    try:
        return topologies.get_topology_desc(**description).devices
    except (RuntimeError, NotImplementedError) as error:
        message = " ".join(str(error).split()).removesuffix(".")
        raise ConfigError(f"The compiler refuses the topology {name}: {message}.") from error
