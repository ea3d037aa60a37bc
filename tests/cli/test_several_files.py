"""Several files and folders at once: the result of each, and which steps overlap."""

import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cdc_jax
import cdc_jax.io.images
from cdc_jax.io import cdc_file
from cdc_jax.io.images import read_image
from tests.cli.fake_codec import FINGERPRINT, StoringCodec, fails, put, tree


def test_a_folder_keeps_its_tree(cdc):
    names = ["a.png", "B.JPG", "sub/a.webp", "sub/deep/c.tiff", "sub/deep/d.bmp"]
    for name in names:
        put(f"in/{name}")
    for name in ("in/notes.txt", "in/.hidden.png", "in/.git/x.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"not an image")
    code, out, err = cdc("compress", "in", "-o", "made/out", "--model=b")
    assert (code, out) == (0, "")
    assert tree("made/out") == ["B.cdc", "a.cdc", "sub/a.cdc", "sub/deep/c.cdc", "sub/deep/d.cdc"]
    assert "5 of 5 files done" in err[-1]
    assert err[0] == "cdc: 1 file is skipped, without the suffix of an image format: in/notes.txt."
    assert len(err) == 1 + 5 + 1  # the skipped file, a line for each of the others, the sum
    assert cdc("decompress", "made/out", "-o", "back", "--format=bmp", "--model=b")[0] == 0
    assert tree("back") == ["B.bmp", "a.bmp", "sub/a.bmp", "sub/deep/c.bmp", "sub/deep/d.bmp"]


def test_without_o_outputs_are_next_to_their_inputs(cdc):
    put("in/a.png")
    put("in/sub/b.png")
    assert cdc("compress", "in/", "--model=b")[0] == 0
    assert tree("in") == ["a.cdc", "a.png", "sub/b.cdc", "sub/b.png"]


def test_images_of_every_format_in_a_folder_are_compressed_and_other_files_are_listed(cdc):
    for name in ("a.gif", "b.ppm", "c.tga"):
        Path("in").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(f"in/{name}")
    for i in range(23):
        Path(f"in/{i:02}.svg").touch()
    assert cdc("compress", "in", "--model=b", "--quiet") == (0, "", [])
    assert [name for name in tree("in") if name.endswith(".cdc")] == ["a.cdc", "b.cdc", "c.cdc"]
    code, _, err = cdc("compress", "in", "--model=b", "--force")  # .cdc files are not listed
    assert code == 0 and err[0].startswith("cdc: 23 files are skipped") and err[0].endswith("in/19.svg and 3 more.")


def test_files_and_folders_together(cdc):
    put("one/a.png", 1)
    put("two/sub/b.png", 2)
    code, _, err = cdc("compress", "one/a.png", "two", "-o", "out", "--model=b")
    assert code == 0 and tree("out") == ["a.cdc", "sub/b.cdc"]


@pytest.mark.parametrize("words", [["compress", "a.png", "b.png"], ["decompress", "a.cdc", "b.cdc"]])
def test_a_line_for_each_file_and_one_for_all(cdc, words):
    for name in "ab":
        put(f"{name}.png", ord(name), size=(16, 8)), put(f"{name}.cdc", ord(name), size=(16, 8))
    code, _, err = cdc(*words, "-o", "out/", "--model=b")
    sizes = [Path(f"out/{name}").stat().st_size for name in tree("out")]
    bpp = 8 * sum(Path(name).stat().st_size for name in tree() if name.endswith(".cdc") and "/" not in name) / 256
    assert code == 0
    for source, target, size, line in zip(words[1:], tree("out"), sizes, sorted(err[:-1]), strict=True):
        details = f"{size} bytes, " if words[0] == "compress" else "8x16"
        assert line.startswith(f"cdc: {source} -> out/{target}: {details}")
    speed = r"\d+\.\d\d images/s, \d+\.\d s"
    assert re.fullmatch(rf"cdc: 2 of 2 files done, {sum(sizes)} bytes written, {bpp:.4f} bpp, {speed}", err[-1])
    assert len(err) == 3


def test_the_bar_is_for_several_files_on_a_terminal(cdc, monkeypatch):
    """And goes neither to files and pipes nor, if quiet, to terminals."""
    for name in "abc":
        put(f"{name}.png")
    assert not any("2/2" in line for line in cdc("compress", "a.png", "b.png", "--model=b")[2])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cdc("compress", "a.png", "b.png", "--quiet", "--force", "--model=b") == (0, "", [])
    assert not any("1/1" in line for line in cdc("compress", "c.png", "--model=b")[2])
    assert any("2/2" in line for line in cdc("compress", "a.png", "b.png", "--force", "--model=b")[2])


def test_one_failed_file_does_not_stop_the_others(cdc):
    for name in "abc":
        put(f"{name}.png")
    Path("b.png").write_bytes(b"nonsense")
    code, out, err = cdc("compress", "a.png", "b.png", "missing.png", "c.png", "--model=b", "--quiet")
    assert code == 1 and len(err) == 2
    assert err[0] == "cdc: missing.png: No such file or folder."
    assert err[1].startswith("cdc: b.png: This is not an image")
    assert tree() == ["a.cdc", "a.png", "b.png", "c.cdc", "c.png"]
    assert "2 of 4 files done" in cdc("compress", "a.png", "b.png", "x", "c.png", "--force", "--model=b")[2][-1]


def test_a_folder_is_decoded_together_and_each_image_lands_in_its_file(cdc, bundles):
    for value in range(9):
        put(f"in/{value}.cdc", value, size=(8 + value % 2, 8))
    corrupt = cdc_file.pack(FINGERPRINT, 8, 8, b"nonsense")
    Path("in/corrupt.cdc").write_bytes(corrupt)
    Path("in/foreign.cdc").write_bytes(b"nonsense")
    Path("out").mkdir()
    Path("out/3.png").write_bytes(b"precious")
    code, _, err = cdc("decompress", "in", "-o", "out", "--model=b")
    assert code == 1 and "8 of 11 files done" in err[-1]
    logged = [line for line in err if "files done" not in line and " -> " not in line]
    assert sorted(line.split(":")[1].strip() for line in logged) == ["in/corrupt.cdc", "in/foreign.cdc", "out/3.png"]
    assert bundles.codecs["b"].batches == [9]  # without the one that is kept and the one of another kind
    for value in (0, 1, 2, 4, 5, 6, 7, 8):
        np.testing.assert_array_equal(read_image(f"out/{value}.png"), np.full((8 + value % 2, 8, 3), value))
    assert Path("out/3.png").read_bytes() == b"precious"


@pytest.mark.parametrize("words", [[], ["--max-memory=1G"]])
def test_too_little_memory_for_one_does_not_stop_the_others(cdc, monkeypatch, words):
    def decompress(self, data, **settings):
        if read_header_of(data) == (8, 16):
            raise MemoryError
        return whole(self, data, **settings)

    def decompress_each(self, files, **settings):
        for index, data in enumerate(files):
            yield index, self.decompress(data, **settings)

    whole = StoringCodec.decompress
    monkeypatch.setattr(StoringCodec, "decompress", decompress)
    monkeypatch.setattr(StoringCodec, "decompress_each", decompress_each)
    for name in "abcd":
        put(f"{name}.cdc", size=(8, 16 if name == "b" else 8))
    code, _, err = cdc("decompress", *(f"{name}.cdc" for name in "abcd"), "--model=b", "--quiet", *words)
    line = "cdc: b.cdc: There is not enough memory for this: raise the limit (ulimit -v), or free some."
    assert (code, err) == (1, [line])
    assert [name for name in tree() if name.endswith(".png")] == ["a.png", "c.png", "d.png"]


def test_images_are_encoded_while_others_are_decoded(cdc, monkeypatch):
    """The codec yields the second image only once the first one is being encoded."""
    finishing = threading.Event()

    def decompress_each(self, files, **settings):
        yield 0, self.decompress(files[0], **settings)
        assert finishing.wait(30)
        for index, data in list(enumerate(files))[1:]:
            yield index, self.decompress(data, **settings)

    monkeypatch.setattr(StoringCodec, "decompress_each", decompress_each)
    encode_image = cdc_jax.io.images.encode_image
    monkeypatch.setattr("cdc_jax.io.images.encode_image", lambda *a: (finishing.set(), encode_image(*a))[1])
    for name in "abc":
        put(f"{name}.cdc")
    assert cdc("decompress", "a.cdc", "b.cdc", "c.cdc", "--model=b", "--quiet") == (0, "", [])
    assert tree() == ["a.cdc", "a.png", "b.cdc", "b.png", "c.cdc", "c.png"]


def test_files_are_compressed_in_parallel(cdc, monkeypatch):
    """Each compression waits for another one, so one after the other they would time out."""
    meeting = threading.Barrier(2, timeout=30)
    compress = StoringCodec.compress
    monkeypatch.setattr(StoringCodec, "compress", lambda self, image, **_: (meeting.wait(), compress(self, image))[1])
    for name in "abcd":
        put(f"{name}.png", ord(name))
    assert cdc("compress", "a.png", "b.png", "c.png", "d.png", "--model=b", "--quiet") == (0, "", [])
    assert [read_header(f"{name}.cdc") for name in "abcd"] == [(8, 8)] * 4


@pytest.mark.parametrize("words", [["compress"], ["decompress"]])
def test_one_job_is_one_file_at_a_time(cdc, monkeypatch, words):
    busy, most = [], []

    def alone(function):
        def call(*args, **kwargs):
            busy.append(1)
            most.append(len(busy))
            time.sleep(0.01)
            try:
                return function(*args, **kwargs)
            finally:
                busy.pop()

        return call

    monkeypatch.setattr("cdc_jax.io.images.read_contents", alone(cdc_jax.io.images.read_contents))
    monkeypatch.setattr("cdc_jax.io.images.encode_image", alone(cdc_jax.io.images.encode_image))
    for name in "abcd":
        put(f"in/{name}.png", ord(name)), put(f"in/{name}.cdc", ord(name))
    assert cdc(*words, "in", "-o", "out/", "--jobs=1", "--model=b", "--quiet") == (0, "", [])
    assert len(tree("out")) == 4 and set(most) == {1}
    fails(cdc(*words, "in", "-o", "out/", "--jobs=0", "--model=b"), 2, "from 1 to 64")


def read_header(path):
    return read_header_of(Path(path).read_bytes())


def read_header_of(data):
    file = cdc_file.unpack(data)
    return file.height, file.width


def test_an_empty_folder_is_an_error(cdc):
    Path("empty").mkdir()
    put("a.png")
    fails(cdc("compress", "empty", "--model=b"), 1, "empty", "no image")
    fails(cdc("decompress", "empty", "-o", "out", "--model=b"), 1, "empty", ".cdc")
    assert cdc("compress", "empty", "a.png", "-o", "out", "--model=b")[0] == 1
    assert tree() == ["a.png", "out/a.cdc"]


def test_heic_files_are_never_skipped(cdc):
    """Without their package, a line says what to install; a file of nothing but a head fails with the package, too."""
    Path("in").mkdir()
    Path("in/a.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    fails(cdc("compress", "in", "--model=b"), 1, "a.HEIC")


def test_images_are_read_at_the_same_time(cdc, monkeypatch):
    """PNG, JPEG and the like: each reading waits for another one."""
    meeting = threading.Barrier(2, timeout=30)
    read_contents = cdc_jax.io.images.read_contents
    monkeypatch.setattr("cdc_jax.io.images.read_contents", lambda *a, **k: (meeting.wait(), read_contents(*a, **k))[1])
    for name in ("a.png", "b.jpg", "c.webp", "d.bmp"):
        put(name)
    assert cdc("compress", "a.png", "b.jpg", "c.webp", "d.bmp", "--model=b", "--quiet") == (0, "", [])


@pytest.mark.parametrize(("number", "words"), [(1, "1 image has"), (3, "3 images have")])
def test_images_of_16_bits_are_one_warning(cdc, number, words):
    deep = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    names = [f"{index}.png" for index in range(number)]
    for name in names:
        Image.fromarray(deep).save(name)
    put("eight.png")
    code, _, err = cdc("compress", *names, "eight.png", "-o", "out/", "--model=b")
    assert code == 0 and [line for line in err if "warning" in line] == [
        f"cdc: warning: {words} more than 8 bits a sample, which were rounded to 8: {', '.join(names)}."
    ]
    assert cdc("compress", *names, "-o", "out/", "--model=b", "--quiet", "--force") == (0, "", [])
