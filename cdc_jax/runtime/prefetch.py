"""Host work done ahead of the devices, or of whoever uses its results: in one thread or several."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def prefetch_one(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) in order; the next one is computed in a thread while the caller uses the one before.

    What the function raises is raised here.
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
    """The same items, made in a thread of their own while the caller is busy with others.

    What making them raises is raised here, after the items before it. A caller who stops waits for the one that is
    being made.

    Args:
      items: is iterated over in that thread.
      size: of an item.
      most: so much may wait for the caller, or one item of any size.
    """
    changed, waiting = threading.Condition(), collections.deque()
    given_up, ended, failure = False, False, None

    def has_room() -> bool:
        return given_up or not waiting or sum(map(size, waiting)) < most

    def produce() -> None:
        nonlocal ended, failure
        try:
            for item in items:
                with changed:
                    changed.wait_for(has_room)
                    if given_up:
                        break
                    waiting.append(item)
                    changed.notify_all()
        except BaseException as error:
            failure = error
        with changed:
            ended = True
            changed.notify_all()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ended)
                if not waiting:
                    break
                item = waiting.popleft()
                changed.notify_all()
            yield item
        if failure is not None:
            raise failure
    finally:
        with changed:
            given_up = True
            changed.notify_all()
        thread.join()


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) in order, `workers` of them computed at a time and no more waiting than that.

    What the function raises is raised here; nothing more is begun then.
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
