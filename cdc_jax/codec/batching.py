"""Many pictures at once: which of them share a program, and host work done ahead of the devices."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from cdc_jax.codec.tiling import WHOLE_PIXELS

Item, Result, Key = TypeVar("Item"), TypeVar("Result"), TypeVar("Key", bound=Hashable)


class Batch(NamedTuple):
    """Pictures of one padded size.

    Attributes:
      members: their indices.
      size: what the batch is padded to, a multiple of the devices; the same for all batches of a size.
    """

    members: list[int]
    size: int


def plan_batches(
    sizes: Sequence[tuple[int, int] | None], devices: int, device_pixels: int = WHOLE_PIXELS
) -> list[Batch]:
    """Groups pictures of the same size into batches that a device decodes in the memory of one large picture.

    Args:
      sizes: padded (height, width) of each picture; None leaves it out.
      devices: how many share a batch.
      device_pixels: each gets no more than so many, or one picture.

    Returns:
      Batches in the order of their first pictures.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        if size is not None:
            groups.setdefault(size, []).append(index)
    batches = []
    for (height, width), members in groups.items():
        most = devices * max(1, device_pixels // (height * width))
        count = -(-len(members) // most)
        size = -(-len(members) // count)  # as even as can be, so that little is padded and one program does for all
        size += -size % devices
        batches += [Batch(members[i : i + size], size) for i in range(0, len(members), size)]
    return sorted(batches, key=lambda batch: batch.members[0])


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
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
    """(item, function(item)) in order, so many computed at a time and no more waiting than that.

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
