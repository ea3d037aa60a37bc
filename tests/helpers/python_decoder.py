"""A decoder written from docs/format.md alone, in plain Python: no constriction, no NumPy, none of `cdc_jax`.

It is slow and trusts the file; what it shows is that the format is ours, not a library's.
"""

import zlib


def read_container(data: bytes) -> tuple[bytes, int, int, bytes]:
    """(fingerprint, height, width, stream) of a file."""
    assert data[:4] == b"\xc3DC\x01" and zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "big")
    sides, position = [], 8
    for _ in range(2):
        side = shift = 0
        while data[position] >= 0x80:
            side, shift, position = side | (data[position] & 0x7F) << shift, shift + 7, position + 1
        sides.append(side | data[position] << shift)
        position += 1
    return data[4:8], *sides, data[position:-4]


class RangeDecoder:
    """Entries out of a stream, each by its table of counts."""

    def __init__(self, stream: bytes):
        self.stream, self.position, self.range = stream, 8, 2**64 - 1
        self.point = int.from_bytes(stream[:8].ljust(8, b"\0"), "big")

    def entry(self, counts: list[int]) -> int:
        scale = self.range >> 24
        quantile, below, entry = self.point // scale, 0, 0
        while quantile >= below + counts[entry]:  # an IndexError: the stream is damaged
            below, entry = below + counts[entry], entry + 1
        self.point, self.range = self.point - scale * below, scale * counts[entry]
        if self.range < 2**32:
            word = self.stream[self.position : self.position + 4].ljust(4, b"\0")
            self.range, self.point = self.range << 32, self.point << 32 | int.from_bytes(word, "big")
            self.position += 4
        return entry

    def bits(self, number: int) -> int:
        return self.entry([2**24 >> number] * (1 << number)) if number else 0


LENGTH_COUNTS = [2**24 * 3**k // 4 ** (k + 1) for k in range(23)]
LENGTH_COUNTS.append(2**24 - sum(LENGTH_COUNTS))


def read_part(decoder: RangeDecoder, tables: list[tuple[int, list[int]]], chosen: list[int]) -> list[int]:
    """The symbols of z or y; the i-th is coded with the table (low, counts) of number chosen[i]."""
    entries = [decoder.entry(tables[number][1]) for number in chosen]
    symbols = [tables[number][0] + entry for number, entry in zip(chosen, entries, strict=True)]
    ends = [len(tables[number][1]) - 1 for number in chosen]  # the entry that is the escape
    escapes = [i for i, entry in enumerate(entries) if entry == ends[i]]
    lengths = {i: decoder.entry(LENGTH_COUNTS) + 1 for i in escapes}
    for length in range(1, 25):
        same = [i for i in escapes if lengths[i] == length]
        upper = [decoder.bits(max(length - 12, 0)) for _ in same]
        for i, high in zip(same, upper, strict=True):
            raw = high << 12 | decoder.bits(min(length, 12))
            excess = (1 << length - 1) + (raw >> 1)
            symbols[i] += -ends[i] - excess if raw & 1 else excess - 1
    return symbols


def read_symbols(stream: bytes, z_tables, y_tables, z_size: tuple[int, int, int], scale_indices_of) -> tuple:
    """(z, y) in raster order; scale_indices_of(z) gives y's scale indices, in raster order too."""
    height, width, channels = z_size
    decoder = RangeDecoder(stream)
    by_channel = read_part(decoder, z_tables, [c for c in range(channels) for _ in range(height * width)])
    z = [by_channel[c * height * width + i] for i in range(height * width) for c in range(channels)]
    indices = scale_indices_of(z)
    order = sorted(range(len(indices)), key=lambda i: indices[i])  # stable: raster order among equals
    y = dict(zip(order, read_part(decoder, y_tables, [indices[i] for i in order]), strict=True))
    return z, [y[i] for i in range(len(indices))]
