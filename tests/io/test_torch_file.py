"""PyTorch's files, honest and hostile, without PyTorch: what they cost is bounded by their size."""

import time
import tracemalloc

import numpy as np
import pytest

from cdc_jax.errors import CheckpointError
from cdc_jax.io.torch_file import read_torch_file
from tests.helpers.torch_files import mapping, name, number, storage, tensor, text, tuple_of, write_legacy, write_zip

WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])
NUMBERS = np.arange(24, dtype="<f4")


def refusal(path) -> str:
    """The one line that a file is refused with: at once, in little memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(CheckpointError) as raised:
            read_torch_file(path)
        seconds, peak_bytes = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(raised.value)
    assert seconds < 1.0 and peak_bytes < 20 * path.stat().st_size + 1_000_000
    assert "\n" not in message and len(message) < 500 and message.startswith(f"{path} is not a readable file")
    return message


@WRITERS
def test_views_of_storages(write, tmp_path):
    views = {
        "whole": tensor("0", "<f4", 24, (4, 6), (6, 1)),
        "transposed": tensor("0", "<f4", 24, (6, 4), (1, 6)),
        "part": tensor("0", "<f4", 24, (3, 3), (6, 1), 8),
        "scalar": tensor("1", "<i8", 1),
        "empty": tensor("1", "<i8", 1, (0, 3), (3, 1)),
        "step": number(7),
    }
    path = write(tmp_path / "w.pt", mapping(views), {"0": NUMBERS, "1": np.array([5], "<i8")})
    read, square = read_torch_file(path), NUMBERS.reshape(4, 6)
    expected = {"whole": square, "transposed": square.T, "part": square[1:, 2:5], "scalar": np.array(5)}
    assert list(read) == [*expected, "empty"]
    for key, array in expected.items():
        np.testing.assert_array_equal(read[key], array)
    assert read["empty"].shape == (0, 3)


@WRITERS
def test_a_key_that_is_for_ever_being_hashed(write, tmp_path):
    """t = (t, t), sixty times: an honest unpickler hashes 2⁶⁰ empty tuples."""
    shared = b")q\0" + b"".join(b"h%bh%b\x86q%b" % (bytes([i]), bytes([i]), bytes([i + 1])) for i in range(60))
    nested = mapping({tuple_of(shared, b"h\x3c"): number(1)})
    assert "a key that is no string, but a tuple" in refusal(write(tmp_path / "w.pt", nested))
    assert len(shared) < 500


@WRITERS
@pytest.mark.parametrize("key", [b"]", b")", b"}", b"N", number(3)])
def test_the_key_of_a_storage_is_a_string(write, key, tmp_path):
    path = write(tmp_path / "w.pt", mapping({"w": tensor(key, "<f4", 24, (24,), (1,))}), {"0": NUMBERS})
    assert "a storage in it has a key that is no string" in refusal(path)


def test_a_name_that_is_for_ever_being_printed(tmp_path):
    """A nested list as a storage's key, which must not get into a message or the name of an entry."""
    shared = b"]q\0" + b"".join(b"](h%bh%beq%b" % (bytes([i]), bytes([i]), bytes([i + 1])) for i in range(60))
    path = write_zip(tmp_path / "w.pt", tuple_of(shared, storage(b"h\x3c", "<f4", 1)))
    assert "a storage in it has a key that is no string" in refusal(path)


@WRITERS
def test_many_views_of_one_storage(write, tmp_path):
    """Each tensor is a copy: a file of 0.3 MB would take 1000 times as much."""
    views = {f"w{i}": tensor("0", "<f4", 10_000, (10_000,), (1,)) for i in range(1000)}
    path = write(tmp_path / "w.pt", mapping(views), {"0": np.zeros(10_000, "<f4")})
    assert "its tensors are larger than the file" in refusal(path)


def test_a_storage_is_read_once(tmp_path):
    """10,000 numbers of a storage of 4 MB: read for each, they are 40 GB."""
    views = {f"w{i}": tensor("0", "<f4", 1_000_000, (1,), (1,), i) for i in range(10_000)}
    path = write_zip(tmp_path / "w.pt", mapping(views), {"0": np.arange(1_000_000, dtype="<f4")})
    start = time.process_time()
    read = read_torch_file(path)
    assert time.process_time() - start < 10 and [read[f"w{i}"][0] for i in (0, 9_999)] == [0, 9_999]


@pytest.mark.parametrize(("opcode", "closing"), [(b"]", b""), (b"]", b"a"), (b"(", b""), (b"N", b""), (b"0", b"")])
def test_floods_of_opcodes(opcode, closing, tmp_path):
    path = write_zip(tmp_path / "w.pt", 1_100_000 * opcode + 1_100_000 * closing)
    with pytest.raises(CheckpointError, match="more than 1000000 opcodes|the opcode POP"):
        read_torch_file(path)


def test_deep_nesting_is_no_matter(tmp_path):
    depth = 300_000
    path = write_zip(tmp_path / "w.pt", mapping({"deep": depth * b"]" + (depth - 1) * b"a", "n": number(1)}))
    assert read_torch_file(path) == {}


@pytest.mark.parametrize(
    "view",
    [
        {"length": 24, "shape": (25,), "strides": (1,)},
        {"length": 24, "shape": (5,), "strides": (6,)},
        {"length": 24, "shape": (24,), "strides": (1,), "offset": 1},
        {"length": 24, "shape": (-1,), "strides": (1,)},
        {"length": 24, "shape": (24,), "strides": (-1,)},
        {"length": 24, "shape": (24,), "strides": ()},
        {"length": 24, "shape": (1,) * 40, "strides": (1,) * 40},
        {"length": 24, "shape": (2**62, 2**62), "strides": (0, 0)},
        {"length": 2**62, "shape": (2**62,), "strides": (1,)},
        {"length": 2**62, "shape": (24,), "strides": (1,)},
        {"length": 2**500, "shape": (24,), "strides": (1,)},
        {"length": -1, "shape": (0,), "strides": (1,)},
        {"length": 25, "shape": (25,), "strides": (1,)},
    ],
)
@WRITERS
def test_views_that_cannot_be(write, view, tmp_path):
    path = write(tmp_path / "w.pt", mapping({"w": tensor("0", "<f4", **view)}), {"0": NUMBERS})
    message = refusal(path)
    assert any(words in message for words in ("invalid shape", "its storage", "larger than the file", "ends early"))


@WRITERS
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (name("os", "system") + tuple_of(text("true")) + b"R", "asks for os.system"),
        (text("os") + text("system") + b"\x93", "asks for os.system"),
        (name("a" * 10_000, "b"), "asks for aaaa"),
        (name("\x1b[31m", "b"), r"asks for '\\x1b\[31m'"),
        (number(1) + tuple_of() + b"R", "not a function"),
        (name("torch", "FloatStorage") + tuple_of() + b"R", "not a function"),
        (number(1) + text("a") + number(2) + b"s", "other than a mapping"),
        (number(1) + number(2) + b"a", "other than a list"),
        (b"}(" + text("a") + b"u", "argument 2"),
        (number(1) + b"\x86", "more than there is"),
        (tuple_of(text("storage"), number(1)) + b"Q", "other than a storage"),
        (b"\x8f", "opcode EMPTY_SET"),
        (b"h\x05", "5"),
        (name("collections", "OrderedDict") + tuple_of(number(3)) + b"R", "other than pairs"),
        (name("torch._utils", "_rebuild_tensor_v2") + b"(" + 4 * number(1) + b"tR", "invalid shape"),
        (number(3), "no mapping"),
    ],
)
def test_pickles_that_are_refused(write, value, message, tmp_path):
    path = write(tmp_path / "w.pt", value)
    with pytest.raises(CheckpointError, match=message):
        read_torch_file(path)
    refusal(path)


def test_storages_that_are_not_there(tmp_path):
    one = mapping({"w": tensor("0", "<f4", 24, (24,), (1,))})
    assert "lacks the entry data/0" in refusal(write_zip(tmp_path / "w.pt", one))
    assert "list of storages" in refusal(write_legacy(tmp_path / "w.pt", one))


@WRITERS
def test_every_truncation(write, tmp_path):
    path = write(tmp_path / "w.pt", mapping({"w": tensor("0", "<f4", 24, (24,), (1,))}), {"0": NUMBERS})
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refusal(path)


def test_a_protocol_4_pickle(tmp_path):
    """Short strings, frames and memoized objects, as `pickle_protocol=4` writes them."""
    short = b"\x8c\x01w\x94"
    path = write_zip(tmp_path / "w.pt", b"}\x94" + short + tensor("0", "<f4", 24, (24,), (1,)) + b"s", {"0": NUMBERS})
    np.testing.assert_array_equal(read_torch_file(path)["w"], NUMBERS)
