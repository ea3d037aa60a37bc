"""Mesh and shardings for data parallelism over devices and hosts.

One mesh with the single axis `data` contains all devices of all hosts. Batches are split along it, weights are
replicated, and one all-reduce averages the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

DATA = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of the given devices; None: all devices of all hosts.

    The devices are ordered by process, so that process p of P has the p-th part of a batch. `jax.make_mesh` may use
    another order.
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that replicates an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The sharding that splits the first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def global_batch(mesh: Mesh, rows: Shaped[np.ndarray, "n ..."], batch_size: int) -> Shaped[Array, "b ..."]:
    """The global batch as one array over all devices of all hosts, assembled from each process's rows."""
    return jax.make_array_from_process_local_data(split_batch(mesh), rows, (batch_size, *rows.shape[1:]))
