"""The chunks of docs/format.md, read in plain Python: PNG alpha channels to their samples, WebP ones to their size.

Of a lossless WebP file only the header is read: what is after it is RFC 9649, and needs a decoder of its own.
"""

import zlib


def read_png(data: bytes) -> list[list[int]]:
    """Rows of a PNG file of 8-bit gray samples without interlacing, of IHDR, IDAT and IEND alone."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, parts = 8, []
    while position < len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        parts.append((kind, data[position + 8 : position + 8 + length]))
        assert zlib.crc32(kind + parts[-1][1]) == int.from_bytes(data[position + 8 + length :][:4], "big")
        position += 12 + length
    (first, header), *middle, (last, end) = parts
    assert (first, last, end) == (b"IHDR", b"IEND", b"") and {kind for kind, _ in middle} == {b"IDAT"}
    assert header[8:] == bytes([8, 0, 0, 0, 0])
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    packed = zlib.decompress(b"".join(content for _, content in middle))
    rows, above = [], [0] * width
    for start in range(0, height * (width + 1), width + 1):
        row: list[int] = []
        for column, value in enumerate(packed[start + 1 : start + 1 + width]):
            left, upper = (row[-1], above[column - 1]) if column else (0, 0)
            row.append((value + _predicted(packed[start], left, above[column], upper)) % 256)
        rows.append(row)
        above = row
    return rows


def _predicted(filter_type: int, left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    paeth = min((left, above, corner), key=lambda value: abs(guess - value))  # the first of equals
    return (0, left, above, (left + above) // 2, paeth)[filter_type]


def webp_size(data: bytes) -> tuple[int, int]:
    """Height and width of a WebP file that is one VP8L chunk without alpha."""
    assert data[:4] + data[8:16] == b"RIFFWEBPVP8L" and int.from_bytes(data[4:8], "little") == len(data) - 8
    bits = int.from_bytes(data[21:25], "little")
    assert data[20] == 0x2F and bits < 1 << 28
    return (bits >> 14) + 1, (bits & 0x3FFF) + 1
