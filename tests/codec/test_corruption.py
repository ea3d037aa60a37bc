"""Damaged and hostile files, read by a whole codec: an error that helps, or a picture that encodes to just these bytes.

A file's checksum catches damage by accident. What is behind it, the header and the stream, is reached by files whose
checksum was put right again, as by an attacker; some of these are sound files of other pictures.
"""

import os
import time
import zlib
from collections import Counter

import numpy as np
import pytest

import cdc_jax
from cdc_jax.errors import BitstreamError, ModelMismatchError
from cdc_jax.io import cdc_file
from tests.helpers.machines import DEFAULT

MAX_PIXELS = 2**20
SECONDS_PER_FILE = 1.0
HEADER_BYTES = 10  # of a file whose sides are below 128


@pytest.fixture(scope="module")
def codec(random_bundle):
    return cdc_jax.load_codec(random_bundle, max_pixels=MAX_PIXELS)


@pytest.fixture(scope="module")
def files(codec) -> list[bytes]:
    """Sound files: smooth, noisy, with more than one cell of z, and one pixel."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(40) * 3, np.arange(60) * 2)[:, :, None] + np.array([0, 20, 40])
    noise = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 64), (65, 127), (1, 1))]
    return [codec.compress(image) for image in (smooth.astype(np.uint8), *noise)]


def sealed(data: bytes) -> bytes:
    """The file with a right checksum in place of its last four bytes."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "big")


def outcome(codec, data: bytes) -> str:
    """"refused", "mismatch", or "read": then the symbols have the declared size and encode to these bytes."""
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
        _, scale_index = codec._coding.hyper_decoder.decode(z)
        stream = codec._coder.encode(z, y, scale_index)
        assert cdc_file.pack(header.fingerprint, header.height, header.width, stream) == data
    return result


def test_every_truncation(codec, files):
    data = files[0]
    for length in range(len(data)):
        assert outcome(codec, data[:length]) == "refused"
    found = Counter(outcome(codec, sealed(data[:length])) for length in range(14, len(data)))
    assert found["refused"] > 0.9 * len(data) and not found["mismatch"]


def test_every_flipped_bit(codec, files):
    data = files[0]
    found = Counter()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        assert outcome(codec, bytes(flipped)) == "refused"
        found[outcome(codec, sealed(flipped))] += 1
    assert found["mismatch"] == 32  # the fingerprint's bits
    assert found["refused"] > 4 * len(data)
    assert found["read"] > 32  # the checksum's bits, put right, and other pictures


def test_trailing_bytes(codec, files):
    for data in files:
        for tail in (b"\0", b"\xff", bytes(4), data[-4:], data, bytes(1000)):
            assert outcome(codec, data + tail) == "refused"
            # With a right checksum the tail belongs to the stream, and no encoder ends it so.
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
        assert outcome(codec, files[0][:HEADER_BYTES] + noise) == "refused"
        outcome(codec, sealed(files[0][:HEADER_BYTES] + noise + bytes(4)))


def declared(codec, height: bytes, width: bytes, stream: bytes = bytes(30)) -> bytes:
    """A file with these bytes as its sides, and a right checksum."""
    return sealed(b"\xc3DC\x01" + codec.fingerprint + height + width + stream + bytes(4))


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (b"\x80\x80\x80\x80\x08", "implausible"),  # 2³¹
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "implausible"),
        (b"\xff\xff\xff\x7f", "--max-pixels"),  # 2²⁸ − 1, the largest side there is
        (b"\x81\x08", "--max-pixels"),  # 1025² pixels
        (b"\x00", "empty"),
        (b"\x80", "header|implausible|shortest"),
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


def test_the_limit_is_a_promise_of_load_codec(codec, random_bundle, files):
    """A picture at the limit is read or refused for its contents; the limit counts sides as 64 at least."""
    assert outcome(codec, declared(codec, b"\x80\x08", b"\x80\x08")) == "refused"  # 1024² pixels
    with pytest.raises(BitstreamError, match="--max-pixels"):
        codec.read_symbols(declared(codec, b"\x01", b"\x81\x80\x01"))  # 1 × 16385, coded as 64 × 16448
    with pytest.raises(BitstreamError, match="--max-pixels"):
        cdc_jax.load_codec(random_bundle, max_pixels=64 * 64).read_symbols(files[2])


def mutated(rng, data: bytes, others: list[bytes]) -> bytes:
    """The file with one to three random changes: flipped bits, other bytes, parts lost, doubled, moved, spliced."""
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


def _mutate_and_read(codec, files: list[bytes], seed: int, count: int) -> Counter:
    """Half as found, half with a right checksum; of these, three quarters with the header put right, too."""
    rng, found = np.random.default_rng(seed), Counter()
    for i in range(count):
        original = files[rng.integers(len(files))]
        data = mutated(rng, original, files)
        if i % 2 == 0:
            result = outcome(codec, data)
            assert result == "refused" or data in files
        else:
            kept = (0, 8, HEADER_BYTES, HEADER_BYTES)[i // 2 % 4]  # 8: all but the size
            found[outcome(codec, sealed(original[:kept] + data[kept:]))] += 1
    return found


def test_mutations(codec, files):
    found = _mutate_and_read(codec, files, 0, 4000)
    assert min(found["read"], found["refused"], found["mismatch"]) > 20, found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_mutations(codec, files, capsys):
    found = _mutate_and_read(codec, files, 1, 20_000)
    with capsys.disabled():
        print(f"\nof 10,000 mutations with a right checksum: {dict(found)}")
    assert sum(found.values()) == 10_000 and min(found.values()) > 100


def test_whole_pictures(codec, files):
    """A few through to the pixels, all of one size in cells, so that one compiled decoder takes them."""
    rng, found = np.random.default_rng(5), Counter()
    while found["read"] < 4 or found["refused"] < 10:
        data = bytearray(files[1])
        data[8], data[9] = rng.integers(1, 65, 2).tolist()
        data[int(rng.integers(HEADER_BYTES, len(data) - 4))] ^= 1 << int(rng.integers(8))
        try:
            picture = codec.decompress(sealed(data), steps=1)
        except BitstreamError:
            found["refused"] += 1
        else:
            found["read"] += 1
            assert picture.shape == (data[8], data[9], 3) and picture.dtype == np.uint8


_MEMORY_SCRIPT = """
import pathlib, re, sys
import numpy as np
from cdc_jax.io import cdc_file
from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import BitstreamError
from tests.codec.test_corruption import MAX_PIXELS, declared, mutated, sealed

model = CodingModel.load(sys.argv[1])
coder = EntropyCoder(model)
files = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[2]).iterdir())]

def read(data):
    header = cdc_file.unpack(data, max_pixels=MAX_PIXELS)
    return coder.decode(header.stream, (-(-header.height // 64), -(-header.width // 64), model.channels))

def peak_bytes():
    # Not getrusage's: that begins with the parent's.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text()).group(1)) * 1024

# The honest picture: as large as the limit allows, every eighth symbol of y escaped.
rng = np.random.default_rng(0)
z = rng.integers(-3, 4, (16, 16, model.channels)).astype(np.int32)
_, index = model.hyper_decoder.decode(z)
y = np.rint(rng.normal(size=index.shape) * model.scales[index]).astype(np.int32)
y.reshape(-1)[::8] = 1_000_000
before = peak_bytes()
data = cdc_file.pack(model.fingerprint, 1024, 1024, coder.encode(z, y, index))
assert np.array_equal(read(data).y, y)
honest = peak_bytes()
tried = 0
for i in range(int(sys.argv[3])):
    sides = [b"\\x80\\x08", b"\\x40", b"\\xff\\x07"]
    noise = rng.bytes(int(rng.integers(0, 3000)))
    damaged = sealed(mutated(rng, files[i % len(files)], files))
    attacks = [damaged, declared(model, *rng.choice(sides, 2).tolist(), noise)]
    for attack in (attacks if i % 50 == 0 else attacks[:1]):
        tried += 1
        try:
            read(attack)
        except BitstreamError:
            pass
print(before, honest, peak_bytes(), tried)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux' measure of memory")
def test_memory_is_that_of_an_honest_picture(random_bundle, files, tmp_path):
    """The most memory that damaged files take, against one sound file of the largest size allowed."""
    for i, data in enumerate(files):
        (tmp_path / f"{i}.cdc").write_bytes(data)
    output = DEFAULT.run("-c", _MEMORY_SCRIPT, random_bundle / "coding.npz", tmp_path, "1000")
    before, honest, most, tried = map(int, output.split())
    assert before < honest and tried >= 1000
    assert most - honest < honest - before
