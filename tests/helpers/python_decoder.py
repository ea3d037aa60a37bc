"""A decoder written from docs/format.md alone, in plain Python: no constriction, no NumPy, none of `cdc_jax`.

It is slow and trusts the file. It shows that the specification is complete and depends on no library.
"""

import zlib
from collections.abc import Callable, Generator
from typing import NamedTuple


class Container(NamedTuple):
    """A file's fields; level and chunks are 0 and empty in format 1."""

    version: int
    fingerprint: bytes
    height: int
    width: int
    level: int
    chunks: dict[bytes, bytes]
    stream: bytes


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Decodes a varint; returns its value and the position after it."""
    value = shift = 0
    while data[position] >= 0x80:
        value, shift, position = value | (data[position] & 0x7F) << shift, shift + 7, position + 1
    return value | data[position] << shift, position + 1


def _checked(data: bytes, checksum: bytes) -> bytes:
    assert zlib.crc32(data) == int.from_bytes(checksum, "big")
    return data


def read_container(data: bytes) -> Container:
    """Reads the fields of a file."""
    body = _checked(data[:-4], data[-4:])
    version = body[3]
    assert body[:3] == b"\xc3DC" and version in (1, 2)
    height, position = _varint(body, 8)
    width, position = _varint(body, position)
    level, chunks = 0, {}
    if version == 2:
        level, count, position = int.from_bytes(body[position : position + 2], "big"), body[position + 2], position + 3
        assert level <= 25600
        for _ in range(count):
            kind = body[position : position + 4]
            length, start = _varint(body, position + 4)
            position = start + length + 4
            chunks[kind] = body[start : start + length]
            _checked(kind + chunks[kind], body[start + length : position])
        assert list(chunks) == sorted(chunks) and len(chunks) == count
    return Container(version, body[4:8], height, width, level, chunks, body[position:])


class RangeDecoder:
    """Decodes entries from a stream, each with its table of counts."""

    def __init__(self, stream: bytes):
        self.stream, self.position, self.range = stream, 8, 2**64 - 1
        self.point = int.from_bytes(stream[:8].ljust(8, b"\0"), "big")

    def entry(self, counts: list[int]) -> int:
        scale = self.range >> 24
        quantile, below, entry = self.point // scale, 0, 0
        while quantile >= below + counts[entry]:  # an IndexError: the stream is corrupt
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
    """Reads the symbols of z or y. Symbol i is coded with the table (low, counts) at index chosen[i]."""
    entries = [decoder.entry(tables[number][1]) for number in chosen]
    symbols = [tables[number][0] + entry for number, entry in zip(chosen, entries, strict=True)]
    ends = [len(tables[number][1]) - 1 for number in chosen]  # each table's escape entry
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


# Yields {index in raster order: scale index} for each pass, receives {index: symbol}, and returns any result.
Passes = Generator[dict[int, int], dict[int, int], object]


def read_symbols(
    stream: bytes, z_tables, y_tables, z_size: tuple[int, int, int], passes_of: Callable[[list[int]], Passes]
) -> tuple[list[int], list[int], object]:
    """Reads (z, y, result of the passes), with z and y in raster order. passes_of(z) gives y's passes."""
    height, width, channels = z_size
    decoder = RangeDecoder(stream)
    by_channel = read_part(decoder, z_tables, [c for c in range(channels) for _ in range(height * width)])
    z = [by_channel[c * height * width + i] for i in range(height * width) for c in range(channels)]
    y, passes, symbols = {}, passes_of(z), None
    while True:
        try:
            indices = passes.send(symbols)
        except StopIteration as finished:
            return z, [y[i] for i in range(len(y))], finished.value
        order = sorted(indices, key=lambda i: (indices[i], i))
        symbols = dict(zip(order, read_part(decoder, y_tables, [indices[i] for i in order]), strict=True))
        y |= symbols
