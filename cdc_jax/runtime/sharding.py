"""Mesh and shardings: how a run is spread over devices and hosts.

Data parallelism: one mesh over all devices of all hosts with the one axis `data`; batches are split along it, weights
are replicated, and one all-reduce averages the gradients. `jax.pmap` did this once; since JAX 0.10 it is itself
`jit(shard_map)` and no longer developed.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

DATA = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over the given devices; None: all devices of all hosts.

    The devices are ordered by process, so that process p of P holds the p-th share of a batch. `jax.make_mesh` may
    order them otherwise.
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def global_batch(mesh: Mesh, rows: np.ndarray, batch_size: int) -> Array:
    """This process's rows of a batch → the whole batch as one array over all devices of all hosts."""
    return jax.make_array_from_process_local_data(split_batch(mesh), rows, (batch_size, *rows.shape[1:]))
