"""Groups images of one padded size into batches, and collects results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cdc_jax.codec.tiling import WHOLE_PIXELS
from cdc_jax.errors import CdcError

Progress = Callable[[int, int], None]


class Batch(NamedTuple):
    """Images of one padded size.

    Attributes:
      members: the images' indices.
      size: the padded batch size, a multiple of the number of devices; equal for all batches of one image size.
    """

    members: list[int]
    size: int


def plan_batches(
    sizes: Sequence[tuple[int, int] | None], devices: int, device_pixels: int = WHOLE_PIXELS
) -> list[Batch]:
    """Groups images of the same size into batches.

    Args:
      sizes: padded (height, width) of each image in pixels; an image whose size is None is left out.
      devices: the number of devices that share a batch.
      device_pixels: limit on the pixels of a device's share of a batch. Each device gets at least one image.

    Returns:
      The batches, ordered by their first images.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        if size is not None:
            groups.setdefault(size, []).append(index)
    batches = []
    for (height, width), members in groups.items():
        most = devices * max(1, device_pixels // (height * width))
        count = -(-len(members) // most)
        size = -(-len(members) // count)  # even sizes, so that one program serves all batches with little padding
        size += -size % devices
        batches += [Batch(members[i : i + size], size) for i in range(0, len(members), size)]
    return sorted(batches, key=lambda batch: batch.members[0])


def collect(ready: Iterator[tuple[int, object]], total: int, progress: Progress | None) -> list:
    """The results in the order of their indices.

    Args:
      ready: yields (index, result) in any order.
      total: the number of results.
      progress: called as `progress(done, total)` after each result.

    Raises:
      CdcError: a result is an error; the first one is raised.
    """
    results = [None] * total
    for done, (index, result) in enumerate(ready, 1):
        if isinstance(result, CdcError):
            raise result
        results[index] = result
        if progress is not None:
            progress(done, total)
    return results
