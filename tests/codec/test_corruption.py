"""Corrupt and hostile files, read by a whole codec: a clear error, or an image that encodes to the same bytes.

A file's checksum catches accidental corruption. To test the checks after it, some files get a recomputed checksum, as
an attacker would do; some of these are valid files of other images.

CDC_MUTATIONS is the number of mutations of the slow test, for each format. docs/format.md has the result of a long run.
"""

import os
import time
from collections import Counter

import numpy as np
import pytest

import cdc_jax
from cdc_jax.errors import BitstreamError, ModelMismatchError
from cdc_jax.io import cdc_file
from tests.helpers.corruption import MAX_PIXELS, declared, header_bytes, mutated, repacked, sealed, valid_files

SECONDS_PER_FILE = 1.0
MUTATIONS = int(os.environ.get("CDC_MUTATIONS", "20000"))
PART = 10_000  # of them for each seed
SEALED = "sealed read", "sealed refused", "sealed mismatch"


@pytest.fixture(scope="module", params=[1, 2], ids=["format 1", "format 2"])
def bundle(request):
    """A bundle whose files have this format."""
    return request.getfixturevalue({1: "random_bundle", 2: "compact_bundle"}[request.param])


@pytest.fixture(scope="module")
def codec(bundle):
    return cdc_jax.load_codec(bundle, max_pixels=MAX_PIXELS)


@pytest.fixture(scope="module")
def files(codec) -> list[bytes]:
    return valid_files(codec)


def outcome(codec, data: bytes) -> str:
    """Returns "refused", "mismatch" or "read". Asserts that symbols encode to the same bytes, for the declared size."""
    start = time.process_time()
    try:
        z, y = codec.read_symbols(data)
    except (BitstreamError, ModelMismatchError) as error:
        assert len(str(error)) > 15 and "\n" not in str(error)
        result = "mismatch" if isinstance(error, ModelMismatchError) else "refused"
    else:
        result = "read"
    assert time.process_time() - start < SECONDS_PER_FILE, data.hex()
    if result == "read":
        header = cdc_file.unpack(data)
        cells = -(-header.height // 64), -(-header.width // 64)
        assert z.shape[:2] == cells and y.shape[:2] == (4 * cells[0], 4 * cells[1])
        coded = codec.coding.latents.code(z, header.level, lambda _: y)
        stream = codec.coder.encode(z, y, coded.scale_index)
        assert repacked(header, stream) == data
    return result


@pytest.mark.parametrize("number", [0, -1])
def test_every_truncation(codec, files, number):
    data = files[number]
    for length in range(len(data)):
        assert outcome(codec, data[:length]) == "refused"
    outcomes = Counter(outcome(codec, sealed(data[:length])) for length in range(14, len(data)))
    assert outcomes["refused"] > 0.9 * (len(data) - 14) and not outcomes["mismatch"]


@pytest.mark.parametrize("number", [0, -1])
def test_every_flipped_bit(codec, files, number):
    data = files[number]
    outcomes = Counter()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        assert outcome(codec, bytes(flipped)) == "refused"
        outcomes[outcome(codec, sealed(flipped))] += 1
    assert outcomes["mismatch"] == 32  # the fingerprint's bits
    assert outcomes["refused"] > 3 * len(data)
    assert outcomes["read"] > 32  # the checksum's bits, recomputed, and other images


def test_trailing_bytes(codec, files):
    for data in files:
        for tail in (b"\0", b"\xff", bytes(4), data[-4:], data, bytes(1000)):
            assert outcome(codec, data + tail) == "refused"
            # With a correct checksum the tail belongs to the stream, but no encoder writes such an end.
            assert outcome(codec, sealed(data[:-4] + tail + bytes(4))) == "refused"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\0", "not a .cdc file"),
        (bytes(1000), "not a .cdc file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "not a .cdc file"),
        (b"\xc3", "cut off"),
        (b"\xc3DC\x01", "cut off"),
    ],
)
def test_other_files(codec, data, message):
    with pytest.raises(BitstreamError, match=message):
        codec.read_symbols(data)


def test_random_bytes(codec, files):
    rng = np.random.default_rng(1)
    for _ in range(300):
        noise = rng.bytes(int(rng.integers(0, 400)))
        assert outcome(codec, noise) == "refused"
        header = files[0][: header_bytes(files[0])]
        assert outcome(codec, header + noise) == "refused"
        outcome(codec, sealed(header + noise + bytes(4)))


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (b"\x80\x80\x80\x80\x08", "implausible"),  # 2³¹
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "implausible"),
        (b"\xff\xff\xff\x7f", "--max-pixels"),  # 2²⁸ − 1, the largest side there is
        (b"\x81\x08", "--max-pixels"),  # 1025² pixels
        (b"\x00", "empty"),
        (b"\x80", "header|implausible|shortest|--max-pixels"),
    ],
)
def test_declared_sizes(codec, side, message):
    import tracemalloc

    data = declared(codec, side, side)
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match=message):
            codec.decompress(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


def test_the_limit_of_load_codec_is_enforced(codec, bundle, files):
    """An image at the limit is not refused for its size. The limit counts every side as at least 64 pixels."""
    assert outcome(codec, declared(codec, b"\x80\x08", b"\x80\x08")) == "refused"  # 1024² pixels
    with pytest.raises(BitstreamError, match="--max-pixels"):
        codec.read_symbols(declared(codec, b"\x01", b"\x81\x80\x01"))  # 1 × 16385, coded as 64 × 16448
    with pytest.raises(BitstreamError, match="--max-pixels"):
        cdc_jax.load_codec(bundle, max_pixels=64 * 64).read_symbols(files[2])


def _mutate_and_read(codec, files: list[bytes], seed: int, count: int) -> tuple[Counter, list[str]]:
    """Mutates files: half keep their checksum, half get a correct one. Most of these keep a part of the header.

    Returns:
      How many had which outcome; with "sealed" before it, of files with a correct checksum. What was mishandled: the
      file in hexadecimal digits, and the error.
    """
    rng, outcomes, mishandled = np.random.default_rng(seed), Counter(), []
    for i in range(count):
        original = files[rng.integers(len(files))]
        data = mutated(rng, original, files)
        if i % 2:
            whole = header_bytes(original)
            kept = (0, 8, whole, whole)[i // 2 % 4]  # 8: everything before the size
            data = sealed(original[:kept] + data[kept:])
        try:
            result = outcome(codec, data)
            assert i % 2 or result == "refused" or data in files, "a wrong checksum was accepted"
            outcomes["sealed " * (i % 2) + result] += 1
        except Exception as error:  # any other error than a reader's own, and a wrong result
            mishandled.append(f"{data.hex()}: {error!r}")
    return outcomes, mishandled


def test_mutations(codec, files):
    outcomes, mishandled = _mutate_and_read(codec, files, 0, 4000)
    assert not mishandled, mishandled[:5]
    assert min(outcomes[name] for name in SEALED) > 10, outcomes


@pytest.mark.slow
@pytest.mark.timeout(300 + MUTATIONS // 100)
def test_many_mutations(codec, files, capsys):
    start, outcomes, mishandled = time.process_time(), Counter(), []
    for seed in range(1, 1 + MUTATIONS // PART):
        counts, found = _mutate_and_read(codec, files, seed, PART)
        outcomes += counts
        mishandled += found
    seconds = time.process_time() - start
    with capsys.disabled():
        counts = f"{dict(outcomes)}, {len(mishandled)} mishandled, {seconds:.0f} s"
        print(f"\nformat {codec.config.format_version}, {MUTATIONS} mutations: {counts}")
    assert not mishandled, mishandled[:5]
    assert min(outcomes[name] for name in SEALED) > 50


def test_whole_images(codec, files):
    """Decodes a few to pixels, all of one padded size, so that one compiled program serves them."""
    rng, outcomes = np.random.default_rng(5), Counter()
    while outcomes["read"] < 4 or outcomes["refused"] < 10:
        data = bytearray(files[1])
        data[8], data[9] = rng.integers(1, 65, 2).tolist()
        data[int(rng.integers(header_bytes(data), len(data) - 4))] ^= 1 << int(rng.integers(8))
        try:
            image = codec.decompress(sealed(data), steps=1)
        except BitstreamError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert image.shape == (data[8], data[9], 3) and image.dtype == np.uint8
