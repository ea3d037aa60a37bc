"""What is fuzzed: for each reader of foreign input, valid inputs to start from and a function that only a bug fails.

The functions take any bytes. Checksums that would keep a fuzzer outside are put right first. A reader may refuse with
its own errors; everything else, and any wrong result, is a finding.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import BitstreamError, BundleError, CheckpointError, ImageError
from cdc_jax.io import cdc_file
from cdc_jax.io.alpha import alpha_chunks, read_alpha
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.header import read_header
from cdc_jax.io.images import encode_image, load_image
from cdc_jax.io.metadata import metadata_in
from cdc_jax.io.torch_file import read_torch_file
from cdc_jax.models.config import ModelConfig
from tests.helpers import torch_files
from tests.helpers.coding_weights import coding_weights, compact_coding_weights

MAX_PIXELS = 1 << 16
_MOST_CHANNELS = 100


class Target(NamedTuple):
    """A reader of foreign input.

    Attributes:
      seeds: makes the inputs to start from.
      run: reads any bytes; returns whether they are accepted, and raises for a finding only.
    """

    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], bool]


# -- the container -----------------------------------------------------------------------------------------------------


def _sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "big")


def _containers() -> list[bytes]:
    alpha = np.arange(12, dtype=np.uint8).reshape(3, 4)
    chunks = (*alpha_chunks(alpha), Chunk(b"EXIF", b"MM\0*\0\0\0\x08\0\0"), Chunk(b"XMPP", b"<x/>"))
    plain = cdc_file.pack(b"1234", 3, 4, b"stream"), cdc_file.pack(b"1234", 200, 300, bytes(40), level=9536)
    return [file[:-4] for file in (*plain, cdc_file.pack(b"1234", 3, 4, b"stream", level=1, chunks=chunks))]


def _run_container(data: bytes) -> bool:
    file = _sealed(data)
    try:
        read_header(file)
        fields = cdc_file.unpack(file, max_pixels=MAX_PIXELS)
        level = fields.level if fields.version > 1 else None
        again = cdc_file.pack(
            fields.fingerprint, fields.height, fields.width, fields.stream, level=level, chunks=fields.chunks
        )
        assert again == file, "a file is not what its fields make"
        read_alpha(fields.chunks, fields.height, fields.width)
        metadata_in(fields.chunks)
    except BitstreamError:
        return False
    return True


# -- the entropy decoder -----------------------------------------------------------------------------------------------


@functools.cache
def _coders() -> tuple[EntropyCoder, ...]:
    compact = CodingModel.build(**compact_coding_weights())
    return EntropyCoder(CodingModel.build(*coding_weights(4))), EntropyCoder(compact)


def _streams() -> list[bytes]:
    rng, seeds = np.random.default_rng(0), []
    for number, coder in enumerate(_coders()):
        model = coder.model
        for height, width in ((1, 1), (1, 2), (2, 2)):
            z = rng.integers(-3, 4, (height, width, model.channels)).astype(np.int32)

            def drawn(step, scales=model.scales):
                y = np.rint(rng.normal(size=step.scale_index.shape) * scales[step.scale_index]).astype(np.int32)
                y.reshape(-1)[::7] *= 1000
                return y

            coded = model.latents.code(z, 9536, drawn)
            stream = coder.encode(z, coded.symbols, coded.scale_index)
            seeds.append(bytes([number, height - 1, width - 1, *struct.pack(">H", 9536)]) + stream)
    return seeds


def _run_stream(data: bytes) -> bool:
    """Two bytes for the size, two for the quality, and the stream: what is behind the file's checksum."""
    if len(data) < 5:
        return False
    coder = _coders()[data[0] % 2]
    shape = 1 + data[1] % 3, 1 + data[2] % 3, coder.model.channels
    level = int.from_bytes(data[3:5], "big") % (cdc_file.MAX_LEVEL + 1)
    try:
        decoded = coder.decode(data[5:], shape, level)
    except BitstreamError:
        return False
    assert decoded.z.shape == shape and np.isfinite(decoded.y_hat).all()
    assert coder.encode(decoded.z, decoded.y, decoded.scale_index) == data[5:], "another stream has these symbols"
    return True


# -- coding.npz --------------------------------------------------------------------------------------------------------


@functools.cache
def _scratch() -> Path:
    """A file that is written for readers of paths; in memory where there is such a folder."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="cdc-fuzz-", dir=folder))


def _archives() -> list[bytes]:
    path = _scratch() / "seed.npz"
    seeds = []
    for coder in _coders():
        coder.model.save(path)
        seeds.append(path.read_bytes())
    return seeds


def _run_archive(data: bytes) -> bool:
    path = _scratch() / "coding.npz"
    path.write_bytes(_with_right_checksums(data))
    try:
        model = CodingModel.load(path)
    except BundleError:
        return False
    z = np.zeros((1, 1, model.channels), np.int32)
    coded = model.latents.code(z, 12800, lambda step: np.ones(step.mean.shape, np.int32))
    stream = EntropyCoder(model).encode(z, coded.symbols, coded.scale_index)
    decoded = EntropyCoder(model).decode(stream, z.shape, 12800)
    assert np.array_equal(decoded.y, coded.symbols), "a loaded model does not code exactly"
    return True


def _with_right_checksums(archive: bytes) -> bytes:
    """A zip archive with the CRC of each stored member put right, in its local header and in the directory."""
    data, checksums, position = bytearray(archive), {}, 0
    while (position := archive.find(b"PK\x03\x04", position)) >= 0 and position + 30 <= len(archive):
        size, name_bytes, extra = struct.unpack_from("<I4xHH", archive, position + 18)
        start = position + 30 + name_bytes + extra
        checksums[position] = zlib.crc32(data[start : start + size])
        struct.pack_into("<I", data, position + 14, checksums[position])
        position = max(start, position + 4)
    position = 0
    while (position := archive.find(b"PK\x01\x02", position)) >= 0 and position + 46 <= len(archive):
        (offset,) = struct.unpack_from("<I", archive, position + 42)
        if offset in checksums:
            struct.pack_into("<I", data, position + 16, checksums[offset])
        position += 46
    return bytes(data)


# -- config.json -------------------------------------------------------------------------------------------------------


def _configs() -> list[bytes]:
    models = (
        ModelConfig(width=4),
        ModelConfig(fold=4, encoder_channels=(4, 4, 4), unet_channels=(4, 4, 4), transform=True),
    )
    facts = {"bundle_version": 1, "fingerprint": "00000000", "weights_sha256": "0" * 64}
    return [json.dumps({**facts, "model": model.to_dict()}).encode() for model in models]


def _run_config(data: bytes) -> bool:
    from cdc_jax.codec.bundle import load_bundle
    from cdc_jax.models.params import shapes

    (_scratch() / "config.json").write_bytes(data)
    (_scratch() / "coding.npz").unlink(missing_ok=True)
    try:
        load_bundle(_scratch())
    except BundleError as error:
        if "coding.npz" not in str(error):
            return False
    config = ModelConfig.from_dict(json.loads(data)["model"])  # it was accepted
    assert config == ModelConfig.from_dict(config.to_dict())
    if max(config.unet_channels) < _MOST_CHANNELS:
        assert shapes(config)
    assert 0 < config.beta(50) < math.inf
    return True


# -- PyTorch's files ---------------------------------------------------------------------------------------------------


def _pickles() -> list[bytes]:
    views = {
        "whole": torch_files.tensor("0", "<f4", 24, (4, 6), (6, 1)),
        "part": torch_files.tensor("0", "<f4", 24, (3, 3), (6, 1), 8),
        "step": torch_files.number(7),
    }
    value = torch_files.START + torch_files.mapping(views) + torch_files.STOP
    keys = torch_files.START + b"](" + torch_files.text("0") + b"e" + torch_files.STOP
    return [b"z" + value, b"l" + value + keys + struct.pack("<q", 24) + bytes(96)]


def _run_pickle(data: bytes) -> bool:
    """`z`: the pickle in a zip archive. `l`: all that comes after an old file's magic number."""
    path = _scratch() / "weights.pt"
    if data[:1] == b"l":
        system = torch_files.START + torch_files.mapping({"little_endian": b"\x88"}) + torch_files.STOP
        path.write_bytes(torch_files.LEGACY_START + system + data[1:])
    else:
        archive = {"0": np.arange(24, dtype="<f4")}
        torch_files.write_zip(path, b"", archive, pickled=data[1:])
    try:
        tensors = read_torch_file(path)
    except CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return False
    assert sum(array.nbytes for array in tensors.values()) <= 2 * path.stat().st_size
    return True


# -- images ------------------------------------------------------------------------------------------------------------


def _images() -> list[bytes]:
    from PIL import Image as PILImage

    image = np.add.outer(np.arange(8) * 9, np.arange(9) * 5)[..., None] + np.array([0, 40, 80])
    seeds = [encode_image(image.astype(np.uint8), name) for name in ("png", "jpeg", "webp", "tiff", "bmp")]
    for mode, name, options in (
        ("P", "GIF", {}),
        ("LA", "PNG", {}),
        ("I;16", "TIFF", {}),
        ("CMYK", "JPEG", {}),
        ("RGBA", "TGA", {}),
        ("1", "PPM", {}),
        ("RGB", "PNG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    ):
        stream = io.BytesIO()
        PILImage.new(mode, (9, 8)).save(stream, name, **options)
        seeds.append(stream.getvalue())
    return seeds


def _run_image(data: bytes) -> bool:
    try:
        image, notes = load_image(data, max_pixels=MAX_PIXELS)
    except ImageError as error:
        assert "\n" not in str(error)
        return False
    assert image.dtype == np.uint8 and image.ndim == 3 and 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS
    assert all("\n" not in note for note in notes)
    return True


TARGETS = {
    "container": Target(_containers, _run_container),
    "stream": Target(_streams, _run_stream),
    "coding_npz": Target(_archives, _run_archive),
    "config_json": Target(_configs, _run_config),
    "torch_file": Target(_pickles, _run_pickle),
    "image": Target(_images, _run_image),
}


def damaged(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """The seeds, and that many inputs made of them by small random changes."""
    yield from seeds
    rng = np.random.default_rng(0)
    for _ in range(count):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 4)):
            place, length = int(rng.integers(len(data))), int(rng.integers(1, 9))
            data[place : place + length * int(rng.integers(2))] = rng.bytes(length * int(rng.integers(2)))
            data = data or bytearray(1)
        yield bytes(data)
