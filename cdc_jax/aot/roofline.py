"""Estimates the time of a compiled program from the published peaks of the chips that it was compiled for.

A roofline of three terms: the time that the products take at the matrix unit's peak, that the operations' reads and
writes take at the memory's bandwidth, and that the collective operations take at the links' bandwidth. The largest of
the three is the time if they overlap completely, their sum is the time if they do not overlap at all. Real programs do
not reach the peaks. On the other hand, the compiler counts what every operation reads and writes, part of which stays
in the chip's fast memory, so the memory term can be too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cdc_jax.aot.collectives import Collective
from cdc_jax.aot.compile import CompileStats


class Peaks(NamedTuple):
    """What one chip can do at most, per second.

    Attributes:
      flops: FLOPs of bfloat16 products.
      memory_bytes: bytes read from and written to high-bandwidth memory.
      link_bytes: bytes sent to other chips over all links together.
    """

    flops: float
    memory_bytes: float
    link_bytes: float


# Google's documentation of each generation, https://docs.cloud.google.com/tpu/docs/v5e and so on: "Peak compute per
# chip (bf16)", HBM bandwidth, and half of "Bidirectional inter-chip interconnect (ICI) bandwidth (per chip)". The links
# of v4 are from Jouppi et al. 2023, "TPU v4: An Optically Reconfigurable Supercomputer": six of 50 GB/s.
PEAKS = {
    "v4": Peaks(275e12, 1200e9, 300e9),
    "v5e": Peaks(197e12, 819e9, 200e9),
    "v5p": Peaks(459e12, 2765e9, 600e9),
    "v6e": Peaks(918e12, 1638e9, 400e9),
}


class StepTime(NamedTuple):
    """Estimated times of one run of a program at the peaks, in seconds.

    Attributes:
      compute, memory, network: for each resource alone.
    """

    compute: float
    memory: float
    network: float

    @property
    def overlapped(self) -> float:
        """If the three overlap completely."""
        return max(self)

    @property
    def one_after_another(self) -> float:
        """If nothing overlaps."""
        return sum(self)


def step_time(stats: CompileStats, peaks: Peaks) -> StepTime:
    """The estimated time of one run of a program, such as a training step.

    Args:
      stats: the program's statistics per chip.
      peaks: the chip's peaks.
    """
    return StepTime(
        compute=stats.pass_flops / peaks.flops,
        memory=stats.accessed_bytes / peaks.memory_bytes,
        network=sent_bytes(stats.collectives, stats.chips) / peaks.link_bytes,
    )


def sent_bytes(collectives: Sequence[Collective], chips: int) -> float:
    """Bytes that each chip sends at least.

    In an all-reduce, it sends its share twice: first to be summed, then to be distributed. Other operations, of which
    our programs have none, count as if they sent their result once.
    """
    share = (chips - 1) / chips
    return sum((2 if item.kind == "all-reduce" else 1) * share * item.result_bytes for item in collectives)
