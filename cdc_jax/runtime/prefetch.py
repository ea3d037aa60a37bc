"""Work on the host that is done in advance, in one thread or several, while the caller uses earlier results."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def prefetch_one(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) in order; a thread computes the next one while the caller uses the one before.

    An error of the function is raised here.
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
    """The same items, made in a thread of their own while the caller uses the ones before.

    An error in making them is raised here, after the items before it. A caller who stops early waits for the item that
    is being made.

    Args:
      items: the iterable, which that thread iterates over.
      size: returns the size of an item.
      most: the total size that may wait for the caller; one item of any size always may.
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
        """The producer's side: puts in all items, until the consumer gives up."""
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
        """The consumer's side: the items in order, then the producer's error, if there was one."""
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
        """The consumer takes no more items."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._given_up or not self._waiting or sum(map(self._size, self._waiting)) < self._most


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) in order; `workers` threads compute them, and no more than that many results wait.

    An error of the function is raised here, and no further item is begun.
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
