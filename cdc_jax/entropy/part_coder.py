"""Codes one part of a stream (z or a pass of y): symbols, table entries and range coder, as `coder` defines them."""

from dataclasses import dataclass

import constriction
import numpy as np
from jaxtyping import Int

from cdc_jax.entropy.tables import PRECISION_BITS, TOTAL_COUNT, Tables
from cdc_jax.errors import BitstreamError

Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform
RangeDecoder = constriction.stream.queue.RangeDecoder
RangeEncoder = constriction.stream.queue.RangeEncoder

_MAX_LENGTH = 24  # binary digits of an excess, for symbols up to 2^23 and edges of tables up to 2^16
_CHUNK_BITS = 12
_SLICE = 1 << 20  # number of symbols that are decoded between checks for the stream's end


def length_counts() -> Int[np.ndarray, " 24"]:
    """Counts of the table of lengths: geometric with ratio 3/4, with the sum 2^24."""
    counts = [TOTAL_COUNT * 3**k // 4 ** (k + 1) for k in range(_MAX_LENGTH - 1)]
    return np.array([*counts, TOTAL_COUNT - sum(counts)], np.int64)


def _categorical(counts: np.ndarray) -> Categorical:
    # constriction assigns one count to every entry and distributes the other 2^24 - n in proportion to the weights. The
    # weights counts - 1 reproduce the counts exactly; counts / 2^24 would not.
    return Categorical((counts - 1).astype(np.float64), perfect=False)


@dataclass(frozen=True, eq=False)
class Entries:
    """The symbols of one part in coding order, as table entries.

    Attributes:
      sizes: int64, the number of symbols that each table codes.
      entries: int32, the entry of each symbol.
      excess: int32, the excess of each escaped symbol, negative below the table and positive above it.
    """

    sizes: Int[np.ndarray, " tables"]
    entries: Int[np.ndarray, " symbols"]
    excess: Int[np.ndarray, " escapes"]


class PartCoder:
    """Codes z or y with a family of tables. Immutable, so safe to use from several threads.

    Attributes:
      least_bits: float64 [tables], the fewest bits that a symbol takes in each table: −log2 of its largest probability.
    """

    def __init__(self, tables: Tables):
        self._low, self._offsets, self._counts = tables.low, tables.offsets, tables.counts
        self._escape = tables.sizes  # the escape's entry is the number of ordinary entries
        self._models = [_categorical(tables[i]) for i in range(len(tables))]
        self._length_model = _categorical(length_counts())
        self._bit_models = [None] + [Uniform(1 << bits) for bits in range(1, _CHUNK_BITS + 1)]
        self.least_bits = PRECISION_BITS - np.log2(np.maximum.reduceat(tables.counts, tables.offsets[:-1]))

    def to_entries(self, symbols: Int[np.ndarray, " symbols"], sizes: Int[np.ndarray, " tables"]) -> Entries:
        """Converts symbols (int32, in coding order) to entries. The first sizes[0] belong to table 0, and so on."""
        escape = np.repeat(self._escape, sizes)
        entries = symbols - np.repeat(self._low, sizes)
        outside = np.flatnonzero(entries.view(np.uint32) >= escape.view(np.uint32))  # a negative entry is a large one
        excess = entries[outside]
        excess = np.where(excess < 0, excess, excess - escape[outside] + 1)
        entries[outside] = escape[outside]
        return Entries(sizes, entries, excess)

    def to_symbols(self, part: Entries) -> Int[np.ndarray, " symbols"]:
        """The inverse of `to_entries`: symbols (int32) in coding order."""
        symbols = part.entries + np.repeat(self._low, part.sizes)
        if part.excess.size:
            outside = np.flatnonzero(part.entries == np.repeat(self._escape, part.sizes))
            # low + the escape's entry is the first symbol above the table, whose excess is 1.
            to_low = self._escape[np.repeat(np.arange(len(self._low)), part.sizes)[outside]]
            symbols[outside] += np.where(part.excess > 0, part.excess - 1, part.excess - to_low)
        return symbols

    def write(self, encoder: RangeEncoder, part: Entries) -> None:
        """Encodes the entries and escaped values."""
        ends = np.cumsum(part.sizes).tolist()
        start = 0
        for end, model in zip(ends, self._models, strict=True):
            if end > start:
                encoder.encode(part.entries[start:end], model)
                start = end
        if not part.excess.size:
            return
        magnitude = np.abs(part.excess)
        length = np.frexp(magnitude.astype(np.float64))[1].astype(np.int32)
        encoder.encode(length - 1, self._length_model)
        raw = (magnitude - (1 << (length - 1))) * 2 + (part.excess < 0)
        for bits in np.unique(length).tolist():
            values = raw[length == bits].astype(np.int32)
            if bits > _CHUNK_BITS:
                encoder.encode(values >> _CHUNK_BITS, self._bit_models[bits - _CHUNK_BITS])
            low_bits = min(bits, _CHUNK_BITS)
            encoder.encode(values & ((1 << low_bits) - 1), self._bit_models[low_bits])

    def read(self, decoder: RangeDecoder, sizes: Int[np.ndarray, " tables"]) -> Entries:
        """Decodes the entries and escaped values of `sizes[i]` symbols for each table i.

        Args:
          decoder: a stream, followed by more zeros than a valid one needs.
          sizes: the number of symbols of each table.

        Raises:
          BitstreamError: the symbols continue after the stream's end.
        """
        entries = np.empty(int(sizes.sum()), np.int32)
        escapes, start = 0, 0
        for model, size, escape in zip(self._models, sizes.tolist(), self._escape.tolist(), strict=True):
            end = start + size
            while start < end:
                count = min(end - start, _SLICE)
                entries[start : start + count] = group = decoder.decode(model, count)
                escapes += int(np.count_nonzero(group == escape))
                start += count
                if decoder.maybe_exhausted():
                    raise BitstreamError("The file is corrupt: its data ends too early.")
        if not escapes:
            return Entries(sizes, entries, np.empty(0, np.int32))
        length = decoder.decode(self._length_model, escapes) + 1
        raw = np.zeros(escapes, np.int32)
        for bits in np.unique(length).tolist():
            chosen = np.flatnonzero(length == bits)
            if bits > _CHUNK_BITS:
                raw[chosen] = decoder.decode(self._bit_models[bits - _CHUNK_BITS], len(chosen)) << _CHUNK_BITS
            raw[chosen] |= decoder.decode(self._bit_models[min(bits, _CHUNK_BITS)], len(chosen))
        magnitude = (raw >> 1) + (1 << (length - 1))
        return Entries(sizes, entries, np.where(raw & 1, -magnitude, magnitude).astype(np.int32))

    def rate_bits(self, part: Entries) -> float:
        """Ideal size in bits: Σ log2(2^24 / count) over all entries, including escaped values."""
        flat = part.entries + np.repeat(self._offsets[:-1], part.sizes)
        used = np.bincount(flat, minlength=len(self._counts))
        bits = used @ (PRECISION_BITS - np.log2(self._counts))
        length = np.frexp(np.abs(part.excess).astype(np.float64))[1]
        return float(bits + np.sum(PRECISION_BITS - np.log2(length_counts()[length - 1]) + length))
