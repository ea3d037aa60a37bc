"""A pool of this process's devices, which callers acquire one at a time or all at once.

This bounds the memory in use. A model's weights are copied to a device when the device is first used.
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
    """The local devices, with one model's weights. Safe to use from several threads."""

    def __init__(self, params: Params):
        devices = jax.local_devices()
        self.mesh = make_mesh(devices)
        # Last in, first out: sequential calls get the same device, for which their programs are already compiled.
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
        """Limit on the pixels of one device's batch. 0 on CPUs (one image each): batches gain nothing there."""
        return 0 if self._devices[0].platform == "cpu" else WHOLE_PIXELS

    @contextlib.contextmanager
    def one(self) -> Iterator[Params]:
        """Waits for a free device, and reserves it; yields the weights on it."""
        index = self._free.get()
        try:
            if index not in self._copies:
                self._copies[index] = jax.device_put(self._copies[0], self._devices[index])
            yield self._copies[index]
        finally:
            self._free.put(index)

    @contextlib.contextmanager
    def all(self) -> Iterator[tuple[Params, Mesh]]:
        """Waits until all devices are free, and reserves them; yields the weights on all of them, and their mesh."""
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
