"""Iterators that compute their items in advance in threads, while the caller uses earlier ones."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def prefetch_one(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Yields (item, function(item)) in order. A thread computes the next result while the caller uses the current one.

    The function's errors are raised here.
    """
    with ThreadPoolExecutor(1) as worker:
        pending = None
        for item in items:
            submitted = item, worker.submit(function, item)
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = submitted
        if pending is not None:
            yield pending[0], pending[1].result()


def in_background(items: Iterable[Item], size: Callable[[Item], int], *, most: int) -> Iterator[Item]:
    """Yields the same items, which a thread produces while the caller uses earlier ones.

    An error of the iterable is raised here, after the items before it. A caller that stops early waits until the
    current item is finished.

    Args:
      items: the iterable; the thread iterates over it.
      size: returns the size of an item.
      most: largest total size of the items that wait for the caller; one item may always wait, whatever its size.
    """
    buffer = _Buffer(size, most)
    thread = threading.Thread(target=buffer.fill, args=(items,), daemon=True)
    thread.start()
    try:
        yield from buffer.items()
    finally:
        buffer.give_up()
        thread.join()


class _Buffer(Generic[Item]):
    """A bounded queue between one producer and one consumer."""

    def __init__(self, size: Callable[[Item], int], most: int):
        self._size, self._most = size, most
        self._changed, self._waiting = threading.Condition(), collections.deque()
        self._given_up, self._ended, self._failure = False, False, None

    def fill(self, items: Iterable[Item]) -> None:
        """Called by the producer: adds all items, until the consumer stops."""
        try:
            for item in items:
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    if self._given_up:
                        break
                    self._waiting.append(item)
                    self._changed.notify_all()
        except BaseException as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def items(self) -> Iterator[Item]:
        """Called by the consumer: yields the items in order, then raises the producer's error, if there was one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._changed.notify_all()
            yield item
        if self._failure is not None:
            raise self._failure

    def give_up(self) -> None:
        """Called by the consumer: ends the producer."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._given_up or not self._waiting or sum(map(self._size, self._waiting)) < self._most


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result]]:
    """Yields (item, function(item)) in order, computed by `workers` threads. At most this number of results wait.

    The function's errors are raised here; then no further item is started.
    """
    pool, pending = ThreadPoolExecutor(workers), []
    try:
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > workers:
                first, future = pending.pop(0)
                yield first, future.result()
        for item, future in pending:
            yield item, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
