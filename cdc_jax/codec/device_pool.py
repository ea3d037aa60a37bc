"""This process's devices, handed out one by one or all together, so that no more is computed at once than fits.

A model's weights are copied to a device when it is first used.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from cdc_jax.codec.tiling import WHOLE_PIXELS
from cdc_jax.models.params import Params
from cdc_jax.runtime.sharding import make_mesh, replicated


class LocalDevices:
    """The local devices and one model's weights on them. Safe to use from several threads."""

    def __init__(self, params: Params):
        devices = jax.local_devices()
        self.mesh = make_mesh(devices)
        # Last in, first out: one caller at a time always gets the device that it has compiled for.
        self._free: queue.LifoQueue[int] = queue.LifoQueue()
        for index in reversed(range(len(devices))):
            self._free.put(index)
        self._devices, self._copies = devices, {0: params}
        self._everywhere: Params | None = None
        self._all = threading.Lock()

    def __len__(self) -> int:
        return len(self._devices)

    @property
    def batch_pixels(self) -> int:
        """The most pixels in one device's batch; 0 (one image each) on CPUs, where batches only cost compilation."""
        return 0 if self._devices[0].platform == "cpu" else WHOLE_PIXELS

    @contextlib.contextmanager
    def one(self) -> Iterator[Params]:
        """The weights on a device that nobody else uses meanwhile; waits for one."""
        index = self._free.get()
        try:
            if index not in self._copies:
                self._copies[index] = jax.device_put(self._copies[0], self._devices[index])
            yield self._copies[index]
        finally:
            self._free.put(index)

    @contextlib.contextmanager
    def all(self) -> Iterator[tuple[Params, Mesh]]:
        """All devices, and the weights on each of them; waits until they are free."""
        with self._all:
            taken = [self._free.get() for _ in self._devices]
            try:
                if self._everywhere is None:
                    alone = len(self._devices) == 1
                    self._everywhere = (
                        self._copies[0] if alone else jax.device_put(self._copies[0], replicated(self.mesh))
                    )
                yield self._everywhere, self.mesh
            finally:
                for index in sorted(taken, reverse=True):
                    self._free.put(index)
