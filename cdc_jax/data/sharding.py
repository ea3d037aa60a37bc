"""The global order of records, and the part of it that belongs to one process.

Grain's `ShardOptions` give each process a contiguous share of the data set, so that its global batches change with the
number of processes. Here every process knows the whole order and picks its rows of each global batch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


class GlobalOrder:
    """Which record comes at position 0, 1, 2, … : epochs without end, each a permutation of its own.

    No permutation is stored: Grain computes each position, in microseconds; with only ten records it takes up to 4 ms.

    Args:
      records: how many there are, at least 1.
      seed: 0 … 2³² − 1.
    """

    def __init__(self, records: int, seed: int):
        import grain  # here, so that only training asks for it

        self.records = records
        self._order = grain.MapDataset.range(records).shuffle(seed=seed).repeat()

    def __getitem__(self, position: int) -> int:
        return int(self._order[position])


@dataclass(frozen=True)
class LocalPositions:
    """Positions in the global order that process p of P fills: of each batch its rows p·B/P … (p + 1)·B/P − 1.

    Attributes:
      batch_size: B, of the global batch; P divides it.
      process_index: p.
      process_count: P.
      first_step: the batch that element 0 belongs to.
    """

    batch_size: int
    process_index: int
    process_count: int
    first_step: int

    @property
    def rows(self) -> int:
        """Of a batch that this process fills."""
        return self.batch_size // self.process_count

    def __len__(self) -> int:
        return sys.maxsize  # no end

    def __getitem__(self, index: int) -> int:
        step, row = divmod(index, self.rows)
        return (self.first_step + step) * self.batch_size + self.process_index * self.rows + row
