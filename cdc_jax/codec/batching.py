"""Many images at once: which share a batch, and their results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cdc_jax.codec.tiling import WHOLE_PIXELS
from cdc_jax.errors import CdcError

Progress = Callable[[int, int], None]


class Batch(NamedTuple):
    """Images of one padded size.

    Attributes:
      members: their indices.
      size: what the batch is padded to, a multiple of the devices; the same for all batches of a size.
    """

    members: list[int]
    size: int


def plan_batches(
    sizes: Sequence[tuple[int, int] | None], devices: int, device_pixels: int = WHOLE_PIXELS
) -> list[Batch]:
    """Groups images of the same size into batches that a device decodes in the memory of one large image.

    Args:
      sizes: padded (height, width) of each image; None leaves it out.
      devices: how many share a batch.
      device_pixels: each device gets at most this many pixels, or one image.

    Returns:
      Batches in the order of their first images.
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


def collect(ready: Iterator[tuple[int, object]], total: int, progress: Progress | None) -> list:
    """The results in the order of their indices; raises the first that is an error."""
    results = [None] * total
    for done, (index, result) in enumerate(ready, 1):
        if isinstance(result, CdcError):
            raise result
        results[index] = result
        if progress is not None:
            progress(done, total)
    return results
