"""The command line, with a codec in place of the real one that stores the pixels: names, exit codes, what is kept."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

import cdc_jax
import cdc_jax.io.images
from cdc_jax.cli import main
from cdc_jax.errors import BitstreamError, BundleError, CheckpointError, ConfigError, ImageError
from cdc_jax.io import cdc_file
from cdc_jax.io.images import read_image, write_image

FINGERPRINT = bytes.fromhex("0a1b2c3d")
OTHER = bytes.fromhex("ffee0011")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, limits and devices")


class StoringCodec:
    """`Codec`'s interface; the stream is the pixels."""

    def __init__(self, fingerprint=FINGERPRINT):
        self.fingerprint = fingerprint
        self.calls = []

    def compress(self, image):
        height, width, _ = image.shape
        return cdc_file.pack(self.fingerprint, height, width, zlib.compress(image.tobytes()))

    def decompress(self, data, *, steps=None, seed=0, gamma=None, **tile):
        self.calls.append({"steps": steps, "seed": seed, "gamma": gamma, **tile})
        file = cdc_file.unpack(data)
        return np.frombuffer(zlib.decompress(file.stream), np.uint8).reshape(file.height, file.width, 3)

    def tile_within(self, data, max_memory_bytes):
        return None if max_memory_bytes > 2**30 else 6

    def decompress_each(self, files, **settings):
        """Last first: any order is allowed. A stream that cannot be read is an error in the image's place."""
        self.batches = [*getattr(self, "batches", []), len(files)]
        for index in reversed(range(len(files))):
            try:
                yield index, self.decompress(files[index], **settings)
            except zlib.error:
                yield index, BitstreamError("The file is damaged.")


class Bundles:
    """A loader of codecs that remembers what it loaded; a bundle's fingerprint follows from its name."""

    def __init__(self):
        self.loaded, self.codecs = [], {}

    def __call__(self, path, *, max_pixels):
        self.loaded.append(str(path))
        self.max_pixels = max_pixels
        if "corrupt" in str(path):
            raise BundleError(f"{path} is not a bundle")
        return self.codecs.setdefault(str(path), StoringCodec(OTHER if "other" in str(path) else FINGERPRINT))


@pytest.fixture
def bundles():
    return Bundles()


@pytest.fixture
def cdc(capfd, bundles, tmp_path, monkeypatch):
    """Runs a command line in `tmp_path`: (exit code, standard output, lines of standard error).

    capfd comes first, so that what a test puts in place of sys.stdout is taken away before it ends.
    """
    monkeypatch.chdir(tmp_path)

    def run(*words, load_codec=bundles):
        code = main(list(words), load_codec=load_codec)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err.splitlines()

    return run


@pytest.fixture
def photo(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_image(tmp_path / "photo.png", image)
    return image


def put(path, value=1, size=(8, 8)):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".cdc":
        path.write_bytes(StoringCodec().compress(np.full((*size, 3), value, np.uint8)))
    else:
        write_image(path, np.full((*size, 3), value, np.uint8))


def tree(folder="."):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def fails(result, code, *words):
    """One line on standard error, that holds all the words; nothing on standard output."""
    exit_code, out, err = result
    assert exit_code == code and out == "" and len(err) == 1, result
    for word in words:
        assert word in err[0], result


# --- one file --------------------------------------------------------------------------------------------------------


def test_there_and_back_beside_the_input(cdc, photo):
    code, out, err = cdc("compress", "photo.png", "--model=b")
    size = Path("photo.cdc").stat().st_size
    assert (code, out) == (0, "") and len(err) == 1
    assert err[0].startswith(f"cdc: photo.png -> photo.cdc: {size} bytes, {8 * size / 600:.4f} bpp, ")
    Path("photo.png").unlink()
    code, out, err = cdc("decompress", "photo.cdc", "--model=b")
    assert (code, out) == (0, "") and err[0].startswith("cdc: photo.cdc -> photo.png: 30x20, ")
    np.testing.assert_array_equal(read_image("photo.png"), photo)
    assert tree() == ["photo.cdc", "photo.png"]


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.JPEG", "out.webp", "out.tif", "out.tiff", "out.bmp"])
def test_the_output_name_chooses_the_format(cdc, photo, name):
    assert cdc("compress", "photo.png", "-o", "x.cdc", "--model=b")[0] == 0
    assert cdc("decompress", "x.cdc", "-o", name, "--model=b")[0] == 0
    with Image.open(name) as image:
        assert image.format == {"jpg": "JPEG", "tif": "TIFF"}.get(name[4:], name[4:].upper())


def test_format_decides_where_the_name_does_not(cdc, photo):
    put("a.cdc")
    assert cdc("decompress", "a.cdc", "--format=webp", "--model=b")[0] == 0
    assert cdc("decompress", "a.cdc", "-o", "noname", "--format=bmp", "--model=b")[0] == 0
    assert cdc("decompress", "a.cdc", "-o", "a.jpeg", "--format=jpeg", "--model=b")[0] == 0
    assert Path("noname").read_bytes()[:2] == b"BM"
    assert tree() == ["a.cdc", "a.jpeg", "a.webp", "noname", "photo.png"]
    fails(cdc("decompress", "a.cdc", "-o", "x.png", "--format=jpeg", "--model=b"), 2, "suffix says png")
    fails(cdc("decompress", "a.cdc", "-o", "x.xyz", "--model=b"), 2, "x.xyz", "--format")
    assert len(tree()) == 5


def test_only_known_suffixes_are_replaced(cdc):
    put("scan.2024.png")
    Path("scan.2024.png").rename("scan.2024")
    assert cdc("compress", "scan.2024", "--model=b")[0] == 0
    assert tree() == ["scan.2024", "scan.2024.cdc"]


def test_quiet_tells_nothing(cdc, photo):
    assert cdc("compress", "photo.png", "-q", "--model=b") == (0, "", [])


def test_decoding_options_arrive(cdc, bundles):
    put("a.cdc")
    options = ["--steps=7", "--seed=5", "--gamma=0.25", "--max-pixels=1000"]
    assert cdc("decompress", "a.cdc", "-o", "1.png", "--model=b")[0] == 0
    assert bundles.max_pixels == 2**28
    assert cdc("decompress", "a.cdc", "-o", "2.png", "--model=b", *options)[0] == 0
    defaults = {"steps": None, "seed": 0, "gamma": None}
    assert bundles.codecs["b"].calls == [defaults, {"steps": 7, "seed": 5, "gamma": 0.25}]
    assert bundles.max_pixels == 1000


def test_max_memory_is_for_each_file_and_told_where_it_changes_the_image(cdc, bundles):
    put("a.cdc"), put("b.cdc", size=(6, 5))
    assert cdc("decompress", "a.cdc", "b.cdc", "--max-memory=1.5g", "-o", "1", "-q", "--model=b") == (0, "", [])
    code, _, err = cdc("decompress", "a.cdc", "b.cdc", "--max-memory=900M", "-o", "2", "--model=b")
    told = [line for line in err if "--max-memory" in line]
    assert code == 0 and [line.split(": ")[1] for line in told] == ["a.cdc", "b.cdc"]
    assert "in tiles of 6 pixels" in told[0] and "decoded whole" in told[1]
    assert [call.get("tile") for call in bundles.codecs["b"].calls] == [None, None, 6, 6]


@pytest.mark.parametrize(
    "option",
    ["--max-memory=0", "--max-memory=4X", "--max-memory=G", "--max-memory=-1G"]
    + ["--steps=0", "--steps=x", "--steps=1.5", "--seed=-1", "--seed=4294967296", "--gamma=-0.1", "--gamma=nan"]
    + ["--gamma=inf", "--gamma=x", "--max-pixels=0", "--format=gif", "--step=3", "--wrong"],
)
def test_impossible_options_are_usage_errors(cdc, bundles, option):
    put("a.cdc")
    fails(cdc("decompress", "a.cdc", "--model=b", option), 2, option.split("=")[0])
    assert bundles.loaded == []


def test_max_pixels_is_checked_before_the_model_is_loaded(cdc, bundles, photo):
    put("a.cdc", size=(64, 100))
    fails(cdc("compress", "photo.png", "--max-pixels=599", "--model=b"), 1, "photo.png", "--max-pixels")
    fails(cdc("decompress", "a.cdc", "--max-pixels=6399", "--model=b"), 1, "a.cdc", "--max-pixels")
    assert bundles.loaded == []
    assert cdc("compress", "photo.png", "--max-pixels=600", "--model=b")[0] == 0


def test_alpha_is_told_once_per_file(cdc):
    Image.new("RGBA", (4, 4), (9, 9, 9, 9)).save("a.png")
    code, _, err = cdc("compress", "a.png", "--model=b")
    assert code == 0 and [line for line in err if "warning" in line] == [err[0]]
    assert err[0] == "cdc: warning: a.png: the alpha channel was dropped"
    assert cdc("compress", "a.png", "-q", "--force", "--model=b") == (0, "", [])


# --- standard input and output ---------------------------------------------------------------------------------------


class Stream(io.TextIOWrapper):
    def __init__(self, data=b""):
        super().__init__(io.BytesIO(data), write_through=True)


def test_dash_is_standard_input_and_output(cdc, photo, monkeypatch):
    def pipe(data, *words):
        monkeypatch.setattr(sys, "stdin", Stream(data))
        monkeypatch.setattr(sys, "stdout", Stream())
        code, _, err = cdc(*words)
        assert code == 0
        return sys.stdout.buffer.getvalue(), err

    file, err = pipe(Path("photo.png").read_bytes(), "compress", "-", "--model=b")
    assert err[0].startswith("cdc: standard input -> standard output: ")
    assert pipe(b"", "compress", "photo.png", "-o", "-", "--model=b")[0] == file
    decoded, _ = pipe(file, "decompress", "-", "--model=b")
    assert decoded.startswith(b"\x89PNG")
    np.testing.assert_array_equal(read_image(decoded), photo)
    assert pipe(file, "decompress", "-", "--format=bmp", "--model=b")[0].startswith(b"BM")
    pipe(file, "decompress", "-", "-o", "out.tif", "--model=b")
    np.testing.assert_array_equal(read_image("out.tif"), photo)
    assert tree() == ["out.tif", "photo.png"]


def test_closed_standard_streams(cdc, photo, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    fails(cdc("compress", "-", "--model=b"), 1, "standard input is closed")
    monkeypatch.setattr(sys, "stdout", None)
    fails(cdc("compress", "photo.png", "-o", "-", "--model=b"), 1, "standard output is closed")


def test_messages_never_go_to_standard_output(cdc, photo, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", Stream())
    assert cdc("compress", "photo.png", "-o", "-", "--model=b")[0] == 0
    cdc_file.unpack(sys.stdout.buffer.getvalue())
    assert cdc("compress", "missing.png", "--model=b") == (1, "", [])


def test_bytes_are_not_written_to_a_terminal(cdc, photo, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    fails(cdc("compress", "photo.png", "-o", "-", "--model=b"), 2, "terminal")


def test_bad_standard_input(cdc, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stream(b"nonsense"))
    fails(cdc("compress", "-", "-o", "a.cdc", "--model=b"), 1, "standard input: this is not an image")
    monkeypatch.setattr(sys, "stdin", Stream(b"nonsense"))
    fails(cdc("decompress", "-", "-o", "a.png", "--model=b"), 1, "standard input: ")
    assert tree() == []


# --- several files ---------------------------------------------------------------------------------------------------


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
    assert any("5/5" in line for line in err)  # the bar
    assert cdc("decompress", "made/out", "-o", "back", "--format=bmp", "--model=b")[0] == 0
    assert tree("back") == ["B.bmp", "a.bmp", "sub/a.bmp", "sub/deep/c.bmp", "sub/deep/d.bmp"]


def test_a_folder_without_o_is_done_in_place(cdc):
    put("in/a.png")
    put("in/sub/b.png")
    assert cdc("compress", "in/", "--model=b")[0] == 0
    assert tree("in") == ["a.cdc", "a.png", "sub/b.cdc", "sub/b.png"]


def test_files_and_folders_together(cdc):
    put("one/a.png", 1)
    put("two/sub/b.png", 2)
    code, _, err = cdc("compress", "one/a.png", "two", "-o", "out", "--model=b")
    assert code == 0 and tree("out") == ["a.cdc", "sub/b.cdc"]


def test_the_bar_is_for_several_files_only_and_not_when_quiet(cdc):
    for name in "abc":
        put(f"{name}.png")
    assert cdc("compress", "a.png", "b.png", "-q", "--model=b") == (0, "", [])
    assert not any("1/1" in line for line in cdc("compress", "c.png", "--model=b")[2])
    assert any("2/2" in line for line in cdc("compress", "a.png", "b.png", "--force", "--model=b")[2])


def test_one_failed_file_does_not_stop_the_others(cdc):
    for name in "abc":
        put(f"{name}.png")
    Path("b.png").write_bytes(b"nonsense")
    code, out, err = cdc("compress", "a.png", "b.png", "missing.png", "c.png", "--model=b", "-q")
    assert code == 1 and len(err) == 2
    assert err[0] == "cdc: missing.png: no such file or folder"
    assert err[1].startswith("cdc: b.png: this is not an image")
    assert tree() == ["a.cdc", "a.png", "b.png", "c.cdc", "c.png"]
    assert "2 of 4 files done" in cdc("compress", "a.png", "b.png", "x", "c.png", "--force", "--model=b")[2][-1]


def test_a_folder_is_decoded_together_and_each_image_lands_in_its_file(cdc, bundles):
    for value in range(9):
        put(f"in/{value}.cdc", value, size=(8 + value % 2, 8))
    damaged = cdc_file.pack(FINGERPRINT, 8, 8, b"nonsense")
    Path("in/damaged.cdc").write_bytes(damaged)
    Path("in/foreign.cdc").write_bytes(b"nonsense")
    Path("out").mkdir()
    Path("out/3.png").write_bytes(b"precious")
    code, _, err = cdc("decompress", "in", "-o", "out", "--model=b")
    assert code == 1 and "8 of 11 files done" in err[-1]
    told = [line for line in err if line.startswith("cdc: ") and "files done" not in line]
    assert sorted(line.split(":")[1].strip() for line in told) == ["in/damaged.cdc", "in/foreign.cdc", "out/3.png"]
    assert bundles.codecs["b"].batches == [9]  # without the one that is kept and the one that is no file
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
    code, _, err = cdc("decompress", *(f"{name}.cdc" for name in "abcd"), "--model=b", "-q", *words)
    assert code == 1 and err == ["cdc: b.cdc: there is not enough memory for this"]
    assert [name for name in tree() if name.endswith(".png")] == ["a.png", "c.png", "d.png"]


def test_images_are_finished_while_others_are_decoded(cdc, monkeypatch):
    """The second image is not given out before the first one's file is being made."""
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
    assert cdc("decompress", "a.cdc", "b.cdc", "c.cdc", "--model=b", "-q") == (0, "", [])
    assert tree() == ["a.cdc", "a.png", "b.cdc", "b.png", "c.cdc", "c.png"]


def test_files_are_worked_on_together(cdc, monkeypatch):
    """Each compression waits for another one: one after the other they would never end."""
    meeting = threading.Barrier(2, timeout=30)
    compress = StoringCodec.compress
    monkeypatch.setattr(StoringCodec, "compress", lambda self, image: (meeting.wait(), compress(self, image))[1])
    for name in "abcd":
        put(f"{name}.png", ord(name))
    assert cdc("compress", "a.png", "b.png", "c.png", "d.png", "--model=b", "-q") == (0, "", [])
    assert [read_header(f"{name}.cdc") for name in "abcd"] == [(8, 8)] * 4


def read_header(path):
    return read_header_of(Path(path).read_bytes())


def read_header_of(data):
    file = cdc_file.unpack(data)
    return file.height, file.width


def test_an_empty_folder_is_an_error(cdc):
    Path("empty").mkdir()
    put("a.png")
    fails(cdc("compress", "empty", "--model=b"), 1, "empty", ".png")
    fails(cdc("decompress", "empty", "-o", "out", "--model=b"), 1, "empty", ".cdc")
    assert cdc("compress", "empty", "a.png", "-o", "out", "--model=b")[0] == 1
    assert tree() == ["a.png", "out/a.cdc"]


# --- before any work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, expected",
    [
        (["in"], ["in/photo.jpg", "in/photo.png", "in/photo.cdc"]),  # two inputs, one name
        (["in/sub/photo.png", "other/photo.png", "-o", "out"], ["out/photo.cdc"]),
        (["in/sub", "other", "-o", "out"], ["out/photo.cdc"]),
        (["other/photo.png", "other/../other/photo.png"], ["other/photo.cdc"]),
        (["other/photo.png", "-o", "other/photo.png"], ["other/photo.png", "also an input"]),
        (["other/photo.png", "-o", "link.png", "--force"], ["link.png", "also an input"]),
        (["other/photo.png", "-o", "out-folder"], ["out-folder", "folder"]),
        (["other/photo.png", "-o", "new-folder/"], ["new-folder/", "folder"]),
        (["other", "-o", "odd.cdc", "--force"], ["odd.cdc", "is a file"]),
        (["other/photo.png", "odd.cdc", "-o", "odd.cdc", "--force"], ["odd.cdc", "is a file"]),
        (["other/photo.png", "-"], ["'-'"]),
        (["other", "-o", "-"], ["'-'"]),
        (["other/photo.png", "--model=other"], ["one --model"]),
        ([], ["no input files"]),
    ],
)
def test_contradictions_are_refused_before_any_work(cdc, bundles, words, expected):
    for name in ("in/photo.png", "in/photo.jpg", "in/sub/photo.png", "other/photo.png", "odd.png"):
        put(name)
    Path("odd.png").rename("odd.cdc")
    Path("out-folder").mkdir()
    Path("link.png").symlink_to("other/photo.png")
    before = tree()
    fails(cdc("compress", *words, "--model=b"), 2, *expected)
    assert tree() == before and bundles.loaded == []


@pytest.mark.parametrize("words", [[], ["squash"], ["compress", "a.png"], ["compress", "a.png", "--model"], ["info"]])
def test_usage_errors(cdc, words):
    fails(cdc(*words), 2, "--help")


def test_an_existing_output_is_kept_unless_forced(cdc, bundles, photo):
    Path("photo.cdc").write_bytes(b"precious")
    fails(cdc("compress", "photo.png", "--model=b"), 1, "photo.cdc", "--force")
    assert Path("photo.cdc").read_bytes() == b"precious"
    assert bundles.loaded == []
    put("b.png")
    assert cdc("compress", "photo.png", "b.png", "--model=b")[0] == 1  # the other one is made
    assert tree() == ["b.cdc", "b.png", "photo.cdc", "photo.png"]
    assert cdc("compress", "photo.png", "--force", "--model=b")[0] == 0
    assert cdc_file.unpack(Path("photo.cdc").read_bytes()).height == 20


def test_a_failure_leaves_an_existing_output_as_it_was(cdc):
    Path("a.png").write_bytes(b"nonsense")
    Path("a.cdc").write_bytes(b"precious")
    fails(cdc("compress", "a.png", "--force", "--model=b"), 1, "a.png")
    assert Path("a.cdc").read_bytes() == b"precious"


@pytest.mark.parametrize("output", ["missing/a.cdc", "photo.png/a.cdc", "folder.cdc"])
def test_places_that_cannot_be_written_to(cdc, bundles, photo, output):
    Path("folder.cdc").mkdir()
    code = 2 if output == "folder.cdc" else 1
    fails(cdc("compress", "photo.png", "-o", output, "--force", "--model=b"), code, output)
    assert tree() == ["photo.png"] and bundles.loaded == []


def test_a_folder_in_the_place_of_the_output(cdc, photo):
    Path("photo.cdc").mkdir()
    fails(cdc("compress", "photo.png", "--force", "--model=b"), 1, "photo.cdc", "folder")


def test_a_file_in_the_place_of_an_output_folder(cdc):
    put("in/sub/a.png")
    put("in/b.png")
    Path("out").mkdir()
    Path("out/sub").write_bytes(b"precious")
    code, _, err = cdc("compress", "in", "-o", "out", "-q", "--model=b")
    assert code == 1 and len(err) == 1 and "out/sub" in err[0]
    assert tree("out") == ["b.cdc", "sub"] and Path("out/sub").read_bytes() == b"precious"


def test_bad_inputs(cdc):
    Path("folder").mkdir()
    Path("empty.cdc").write_bytes(b"")
    Path("foreign.cdc").write_bytes(b"\x89PNG nonsense")
    put("cut.cdc")
    Path("cut.cdc").write_bytes(Path("cut.cdc").read_bytes()[:-3])
    for name in ("missing.cdc", "empty.cdc", "foreign.cdc", "cut.cdc"):
        fails(cdc("decompress", name, "-o", "out.png", "--model=b"), 1, name)
        fails(cdc("info", name), 1, name)
    fails(cdc("info", "folder"), 1, "folder", "is a folder")
    assert not Path("out.png").exists()


def test_a_damaged_image_is_one_line_also_where_libraries_write_their_own(cdc, capfd):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8))
    image.save("a.tif", compression="tiff_lzw")
    data = bytearray(Path("a.tif").read_bytes())
    start = TiffImagePlugin.TiffImageFile("a.tif").tag_v2[273][0]
    data[start + 100 : start + 200] = b"\xff" * 100
    Path("a.tif").write_bytes(data)
    with pytest.raises(ImageError):
        read_image("a.tif")
    assert "not yet in table" in capfd.readouterr().err  # libtiff's
    fails(cdc("compress", "a.tif", "--model=b"), 1, "a.tif", "damaged")


# --- models ----------------------------------------------------------------------------------------------------------


def test_decompress_picks_the_model_by_fingerprint(cdc, bundles, photo):
    assert cdc("compress", "photo.png", "--model=other")[0] == 0
    assert cdc("decompress", "photo.cdc", "-o", "1.png", "--model=first", "--model=other")[0] == 0
    for bundle in ("first", "other"):
        (Path(bundle)).mkdir()
        (Path(bundle) / "coding.npz").touch()
    assert cdc("decompress", "photo.cdc", "-o", "2.png", "--model", "first", "other")[0] == 0
    assert cdc("decompress", "--model", "first", "other", "photo.cdc", "-o", "3.png")[0] == 0
    assert len(bundles.codecs["other"].calls) == 3
    for name in ("1.png", "2.png", "3.png"):
        np.testing.assert_array_equal(read_image(name), photo)


def test_each_model_is_loaded_once_and_only_when_needed(cdc, bundles):
    for name in "abc":
        put(f"{name}.cdc")
    assert cdc("decompress", "a.cdc", "b.cdc", "c.cdc", "-q", "--model=mine", "--model=other") == (0, "", [])
    assert bundles.loaded == ["mine"]


def test_a_mismatch_names_both_and_exits_with_3(cdc):
    put("a.cdc")
    put("b.cdc")
    fails(cdc("decompress", "a.cdc", "--model=other"), 3, "a.cdc", FINGERPRINT.hex(), OTHER.hex(), "other")
    code, _, err = cdc("decompress", "a.cdc", "b.cdc", "--model=other", "-q")
    assert code == 3 and len(err) == 2
    Path("b.cdc").write_bytes(b"nonsense")
    assert cdc("decompress", "a.cdc", "b.cdc", "--model=other", "-q")[0] == 1
    assert tree() == ["a.cdc", "b.cdc"]


def test_a_corrupt_bundle_is_told_once(cdc, photo):
    put("b.png")
    code, out, err = cdc("compress", "photo.png", "b.png", "--model=corrupt")
    told = [line for line in err if "corrupt is not a bundle" in line]
    assert (code, len(told)) == (1, 1) and tree() == ["b.png", "photo.png"]


def test_words_may_come_in_any_order(cdc, photo):
    put("-dash.png")
    put("b.png")
    assert cdc("compress", "--model", "b", "photo.png", "-o", "1.cdc")[0] == 0
    assert cdc("compress", "photo.png", "--model", "b", "b.png", "-o", "1")[0] == 0
    assert cdc("compress", "photo.png", "-q", "b.png", "-o", "2", "--model=b")[0] == 0
    assert cdc("compress", "-o", "3", "--model=b", "--", "photo.png", "-dash.png")[0] == 0
    assert [tree(folder) for folder in "123"] == [["b.cdc", "photo.cdc"]] * 2 + [["-dash.cdc", "photo.cdc"]]
    assert Path("1.cdc").exists()


# --- what a codec may raise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, code, text",
    [
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"), 1, "not enough memory"),
        (ConfigError("two\nlines"), 2, "two lines"),
        (OSError(28, "No space left on device"), 1, "No space left"),
    ],
)
def test_errors_a_user_can_cause_are_one_line(cdc, photo, monkeypatch, error, code, text):
    monkeypatch.setattr(StoringCodec, "compress", lambda self, image: (_ for _ in ()).throw(error))
    fails(cdc("compress", "photo.png", "--model=b"), code, "photo.png", text)
    assert tree() == ["photo.png"]


def test_a_bug_of_ours_keeps_its_traceback(cdc, photo, monkeypatch):
    monkeypatch.setattr(StoringCodec, "compress", lambda self, image: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cdc("compress", "photo.png", "--model=b")
    assert tree() == ["photo.png"]


def test_interruption_is_clean(cdc, photo, monkeypatch):
    def interrupted(self, image):
        raise KeyboardInterrupt

    monkeypatch.setattr(StoringCodec, "compress", interrupted)
    Path("photo.cdc").write_bytes(b"precious")
    fails(cdc("compress", "photo.png", "--force", "--model=b"), 130, "interrupted")
    assert tree() == ["photo.cdc", "photo.png"] and Path("photo.cdc").read_bytes() == b"precious"


# --- info ------------------------------------------------------------------------------------------------------------


def test_info(cdc):
    put("a.cdc", size=(5, 7))
    size = Path("a.cdc").stat().st_size
    code, out, err = cdc("info", "a.cdc")
    assert (code, err) == (0, [])
    version = cdc_file.unpack(Path("a.cdc").read_bytes()).version
    bpp = f"{8 * size / 35:.4f} bpp"
    assert out == f"a.cdc: 7x5 pixels, {size} bytes, {bpp}, format {version}, model {FINGERPRINT.hex()}\n"
    facts = json.loads(cdc("info", "--json", "a.cdc")[1])
    assert facts == {
        "file": "a.cdc",
        "width": 7,
        "height": 5,
        "bytes": size,
        "bpp": 8 * size / 35,
        "format_version": version,
        "fingerprint": FINGERPRINT.hex(),
    }


def test_info_of_several_files(cdc, monkeypatch):
    put("a.cdc")
    put("b.cdc")
    code, out, err = cdc("info", "a.cdc", "missing", "--json", "b.cdc")
    assert code == 1 and len(err) == 1 and "missing" in err[0]
    assert [json.loads(line)["file"] for line in out.splitlines()] == ["a.cdc", "b.cdc"]
    monkeypatch.setattr(sys, "stdin", Stream(Path("a.cdc").read_bytes()))
    assert json.loads(cdc("info", "-", "--json")[1])["width"] == 8


@POSIX
def test_info_prints_any_file_name(cdc):
    put("a.cdc")
    os.rename("a.cdc", b"\xff\n.cdc")
    for option in ([], ["--json"]):
        code, out, err = cdc("info", os.fsdecode(b"\xff\n.cdc"), *option)
        assert code == 0 and out.count("\n") == 1


# --- processes -------------------------------------------------------------------------------------------------------

ROOT = Path(cdc_jax.__file__).parents[1]
# A `cdc` whose codec is the one above.
FAKE = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("test_cli", {__file__!r})
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
{{setup}}
sys.exit(tests.main(load_codec=tests.Bundles()))
"""
BUSY = """
def compress(self, image):
    import hashlib
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha1", b"", b"", 10**9)
tests.StoringCodec.compress = compress
"""


def process(*words, shell_limit="", code=None, **options):
    command = [sys.executable, "-c", code, *words] if code else [sys.executable, "-m", "cdc_jax", *words]
    if shell_limit:
        command = ["bash", "-c", f'{shell_limit}; exec "$@"', "bash", *command]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    return subprocess.Popen(command, env=environment, **options)


def test_info_is_quick_and_imports_neither_jax_nor_numpy(tmp_path):
    put(tmp_path / "a.cdc")
    code = (
        "import sys; from cdc_jax.cli import main; code = main(); "
        "heavy = {'jax', 'numpy', 'PIL', 'flax', 'torch'} & set(sys.modules); "
        "print(heavy, file=sys.stderr) if heavy else None; sys.exit(code or bool(heavy))"
    )
    run = process("info", str(tmp_path / "a.cdc"), code=code)
    assert (run.communicate(timeout=60)[1], run.returncode) == (b"", 0)
    seconds = []
    for _ in range(3):  # the best of three: other processes may be busy
        start = time.perf_counter()
        run = process("info", str(tmp_path / "a.cdc"))
        assert b"8x8 pixels" in run.communicate(timeout=60)[0]
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_importing_the_package_is_quick_but_everything_is_there():
    code = "import sys, cdc_jax; sys.exit(bool({'jax', 'numpy', 'PIL'} & set(sys.modules)))"
    run = process(code=code)
    assert (run.communicate(timeout=60), run.returncode) == ((b"", b""), 0)
    assert {"load_codec", "Codec", "ModelMismatchError", "__version__"} <= set(dir(cdc_jax))
    assert cdc_jax.__version__ == cdc_jax.version.__version__
    with pytest.raises(AttributeError, match="nothing"):
        cdc_jax.nothing  # noqa: B018


def test_version_and_help(cdc):
    assert cdc("--version") == (0, f"cdc {cdc_jax.__version__}\n", [])
    code, out, _ = cdc("--help")
    assert code == 0
    for command in ("compress", "decompress", "info", "import-torch", "export"):
        assert command in out
        code, text, _ = cdc(command, "--help")
        assert code == 0 and "exit codes" in text


@POSIX
@pytest.mark.parametrize("target", ["pipe", "/dev/full"])
@pytest.mark.parametrize("words", [["info"], ["decompress", "--model=b", "-o", "-"]])
def test_nobody_reads_the_output(tmp_path, target, words):
    put(tmp_path / "a.cdc")
    if target == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    elif os.path.exists(target):
        writer = os.open(target, os.O_WRONLY)
    else:
        pytest.skip(f"there is no {target} here")
    try:
        run = process(*words, str(tmp_path / "a.cdc"), code=FAKE.format(setup=""), stdout=writer)
        err = run.communicate(timeout=60)[1].decode()
    finally:
        os.close(writer)
    assert run.returncode == 1
    assert err == ("" if target == "pipe" else "cdc: standard output: No space left on device\n")


@POSIX
def test_what_is_no_cdc_file_is_not_read_to_its_end():
    run = process("info", "/dev/zero", shell_limit="ulimit -v 2000000")
    assert run.communicate(timeout=60) == (b"", b"cdc: /dev/zero: This is not a .cdc file.\n")
    assert run.returncode == 1


@POSIX
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    write_image(tmp_path / "a.png", noise)
    (tmp_path / "a.cdc").write_bytes(b"precious")
    words = ["compress", "a.png", "--model=b", "--force"]
    run = process(*words, code=FAKE.format(setup=""), shell_limit="ulimit -f 8", cwd=tmp_path)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (1, b"", b"cdc: a.cdc: File too large\n")
    assert tree(tmp_path) == ["a.cdc", "a.png"]
    assert (tmp_path / "a.cdc").read_bytes() == b"precious"


@POSIX
def test_ctrl_c_ends_the_process_at_once_and_leaves_nothing_behind(tmp_path):
    put(tmp_path / "a.png")
    # Like XLA, the codec is busy for minutes in a place where Python's own signal handler does not run.
    run = process("compress", "a.png", "--model=b", code=FAKE.format(setup=BUSY), cwd=tmp_path, text=True)
    try:
        assert run.stdout.readline() == "busy\n"
        time.sleep(0.3)  # so that it is in there
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=20)
    finally:
        run.kill()
    assert run.returncode in (-signal.SIGINT, 130) and "Traceback" not in err
    assert tree(tmp_path) == ["a.png"]


@POSIX
def test_devices_are_written_to_and_not_replaced(cdc, photo):
    assert cdc("compress", "photo.png", "-o", os.devnull, "--force", "--model=b")[0] == 0
    assert not Path(os.devnull).is_file()
    os.mkfifo("pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE) as reader:
        assert cdc("compress", "photo.png", "-o", "pipe", "--model=b")[0] == 0
        assert cdc_file.unpack(reader.communicate(timeout=60)[0]).width == 30


# --- import-torch, export --------------------------------------------------------------------------------------------


@pytest.fixture
def makers(monkeypatch):
    """Stand-ins for the modules that make bundles; what they were asked for."""
    asked = []

    def make(name):
        def maker(source, folder, **options):
            asked.append((name, source, options))
            if source == "bad":
                Path(folder).mkdir()
                (Path(folder) / "half").touch()
                raise CheckpointError(f"no weights for {folder}")
            Path(folder).mkdir()
            (Path(folder) / "coding.npz").write_text(source)

        return maker

    importer, exporter = types.ModuleType("import_torch"), types.ModuleType("export")
    importer.import_torch, exporter.export_workdir = make("import"), make("export")
    monkeypatch.setitem(sys.modules, "cdc_jax.codec.import_torch", importer)
    monkeypatch.setitem(sys.modules, "cdc_jax.training.export", exporter)
    return asked


def test_bundles_are_made(cdc, makers):
    assert cdc("import-torch", "x.pt", "out")[::2] == (0, ["cdc: x.pt -> out"])
    assert cdc("export", "run", "out2", "--step=5", "-q") == (0, "", [])
    assert makers == [("import", "x.pt", {}), ("export", "run", {"step": 5, "best": False})]
    assert tree() == ["out/coding.npz", "out2/coding.npz"]
    Path("empty").mkdir()
    assert cdc("export", "run", "empty", "-q")[0] == 0
    assert makers[-1] == ("export", "run", {"step": None, "best": False})
    assert cdc("export", "run", "best", "--best", "-q")[0] == 0
    assert makers[-1] == ("export", "run", {"step": None, "best": True})
    assert cdc("export", "run", "both", "--best", "--step=5")[0] == 2
    assert tree("empty") == ["coding.npz"]


def test_an_existing_bundle_is_kept_unless_forced(cdc, makers):
    Path("out").mkdir()
    Path("out/coding.npz").write_text("precious")
    fails(cdc("export", "run", "out"), 1, "out", "--force")
    assert makers == []
    fails(cdc("export", "bad", "out", "--force"), 1, "no weights for", "out")
    assert Path("out/coding.npz").read_text() == "precious" and tree() == ["out/coding.npz"]
    assert cdc("export", "run", "out", "--force", "-q")[0] == 0
    assert Path("out/coding.npz").read_text() == "run" and tree() == ["out/coding.npz"]


def test_force_replaces_nothing_but_bundles(cdc, makers):
    Path("home").mkdir()
    Path("home/letter").write_text("precious")
    for output in ("home", "home/letter"):
        fails(cdc("import-torch", "x.pt", output, "--force"), 1, output, "not a bundle")
    fails(cdc("import-torch", "x.pt", "home/letter/out"), 1, "home/letter/out")
    code, _, err = cdc("import-torch", "bad", "new")
    assert (code, err) == (1, ["cdc: no weights for new"])
    assert tree() == ["home/letter"] and makers[-1] == ("import", "bad", {})


@pytest.mark.parametrize("words", [["import-torch"], ["import-torch", "a"], ["export", "a", "b", "c"]])
def test_bundle_makers_take_two_names(cdc, makers, words):
    fails(cdc(*words), 2, "--help")
    assert makers == []
