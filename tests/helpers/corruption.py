"""Valid files to corrupt, and ways to corrupt them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk

if TYPE_CHECKING:  # it imports JAX, which the test of memory must not
    from cdc_jax.codec.codec import Codec

MAX_PIXELS = 2**20
QUALITIES = (37.25, 100, 10.5, 0)


def valid_files(codec: Codec) -> list[bytes]:
    """Valid files: smooth, noisy, with several cells of z, and of one pixel; in format 2 also one with chunks."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(40) * 3, np.arange(60) * 2)[:, :, None] + np.array([0, 20, 40])
    noise = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 64), (65, 127), (1, 1))]
    images = [smooth.astype(np.uint8), *noise]
    if not codec.config.variable_rate:
        return [codec.compress(image) for image in images]
    found = [codec.compress(image, quality=quality) for image, quality in zip(images, QUALITIES, strict=True)]
    header = cdc_file.unpack(found[0])
    chunks = (Chunk(b"abcd", b"some data"), Chunk(b"zzz9", b""))
    fields = header.fingerprint, header.height, header.width, header.stream
    return [*found, cdc_file.pack(*fields, level=header.level, chunks=chunks)]


def header_bytes(data: bytes) -> int:
    """The number of bytes before the chunks and the stream, for a file whose sides are below 128."""
    return {1: 10, 2: 13}[data[3]]


def sealed(data: bytes) -> bytes:
    """The file with a correct checksum in place of its last four bytes."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "big")


def repacked(header: cdc_file.Container, stream: bytes) -> bytes:
    """A file with the fields of `header` and this stream."""
    fields = {} if header.version == 1 else {"level": header.level, "chunks": header.chunks}
    return cdc_file.pack(header.fingerprint, header.height, header.width, stream, **fields)


def declared(codec: Codec | CodingModel, height: bytes, width: bytes, stream: bytes = bytes(30)) -> bytes:
    """A file with these bytes as its height and width, and a correct checksum."""
    version = codec.format_version if isinstance(codec, CodingModel) else codec.config.format_version
    extension = b"" if version == 1 else b"\x25\x40\0"  # quality 37.25, no chunks
    return sealed(b"\xc3DC" + bytes([version]) + codec.fingerprint + height + width + extension + stream + bytes(4))


def mutated(rng, data: bytes, others: list[bytes]) -> bytes:
    """The file with one to three random changes: flipped bits, other bytes, removed, doubled, moved, spliced parts."""
    data = bytearray(data)
    for _ in range(max(1, rng.integers(-2, 4))):
        place = int(rng.integers(len(data) if rng.random() < 0.8 else 14))
        length = int(rng.integers(1, 40))
        source = int(rng.integers(len(data)))
        match max(0, rng.integers(-4, 8)):
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place] = int(rng.integers(256))
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = rng.bytes(length)
            case 4:
                data[place:place] = data[source : source + length]
            case 5:
                data[place : place + length] = data[source : source + length]
            case 6:
                data[place : place + length] = bytes(length)
            case 7:  # the beginning of this file, the end of another
                other = others[rng.integers(len(others))]
                data[place:] = other[rng.integers(len(other)) :]
        if len(data) < 15:
            data += rng.bytes(15)
    return bytes(data)
