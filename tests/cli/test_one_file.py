"""`cdc compress` and `cdc decompress` of one file, and of standard input and output: names, exit codes, messages."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cdc_jax.errors import ConfigError
from cdc_jax.io import cdc_file
from cdc_jax.io.files import image_format
from cdc_jax.io.images import encode_image, read_image
from tests.cli.fake_codec import StoringCodec, Stream, fails, put, tree


def test_round_trip_next_to_the_input(cdc, photo):
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
    fails(cdc("decompress", "a.cdc", "-o", "x.png", "--format=jpeg", "--model=b"), 2, "suffix means png")
    fails(cdc("decompress", "a.cdc", "-o", "x.xyz", "--model=b"), 2, "x.xyz", "--format")
    assert len(tree()) == 5


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_the_quality_of_outputs(cdc, photo, name):
    sizes = []
    assert cdc("compress", "photo.png", "-o", "x.cdc", "--model=b")[0] == 0
    for quality in ("20", "90"):
        assert cdc("decompress", "x.cdc", "-o", name, "--output-quality", quality, "--model=b", "--force")[0] == 0
        assert Path(name).read_bytes() == encode_image(photo, image_format(name), quality=int(quality))
        sizes.append(Path(name).stat().st_size)
    assert cdc("decompress", "x.cdc", "-o", name, "--model=b", "--force")[0] == 0
    assert sizes[0] < sizes[1] < Path(name).stat().st_size


def test_formats_without_a_quality(cdc, bundles):
    put("a.cdc")
    for words in (["-o", "a.png"], [], ["-o", "a", "--format=tiff"]):
        fails(cdc("decompress", "a.cdc", *words, "--output-quality=50", "--model=b"), 2, "for jpeg and webp")
    fails(cdc("decompress", "a.cdc", "-o", "a.jpg", "--output-quality=0", "--model=b"), 2, "from 1 to 100")
    assert tree() == ["a.cdc"] and bundles.loaded == []


def test_only_known_suffixes_are_replaced(cdc):
    put("scan.2024.png")
    Path("scan.2024.png").rename("scan.2024")
    assert cdc("compress", "scan.2024", "--model=b")[0] == 0
    assert tree() == ["scan.2024", "scan.2024.cdc"]


def test_quiet_prints_nothing(cdc, photo):
    assert cdc("compress", "photo.png", "--quiet", "--model=b") == (0, "", [])


def test_decoding_options_reach_the_codec(cdc, bundles):
    put("a.cdc")
    options = ["--steps=7", "--seed=5", "--gamma=0.25", "--eta=0.5", "--tile=192", "--max-pixels=1000"]
    assert cdc("decompress", "a.cdc", "-o", "1.png", "--model=b")[0] == 0
    assert bundles.max_pixels == 2**28
    assert cdc("decompress", "a.cdc", "-o", "2.png", "--model=b", *options)[0] == 0
    defaults = {"steps": None, "seed": 0, "gamma": None, "eta": 0.0}
    assert bundles.codecs["b"].calls == [defaults, {"steps": 7, "seed": 5, "gamma": 0.25, "eta": 0.5, "tile": 192}]
    assert bundles.max_pixels == 1000
    assert cdc("decompress", "a.cdc", "-o", "3.png", "--model=b", "--steps=0")[0] == 0  # the preview
    assert bundles.codecs["b"].calls[-1] == {**defaults, "steps": 0}


def test_the_tile_applies_to_every_file(cdc, bundles):
    put("a.cdc"), put("b.cdc", size=(6, 5))
    assert cdc("decompress", "a.cdc", "b.cdc", "--tile=256", "-o", "1", "--quiet", "--model=b") == (0, "", [])
    assert [call["tile"] for call in bundles.codecs["b"].calls] == [256, 256]
    fails(cdc("decompress", "a.cdc", "--tile=256", "--max-memory=1G", "--model=b"), 2, "--tile", "--max-memory")


def test_max_memory_applies_to_each_file_and_is_logged_if_it_changes_the_image(cdc, bundles):
    put("a.cdc"), put("b.cdc", size=(6, 5))
    assert cdc("decompress", "a.cdc", "b.cdc", "--max-memory=1.5g", "-o", "1", "--quiet", "--model=b") == (0, "", [])
    code, _, err = cdc("decompress", "a.cdc", "b.cdc", "--max-memory=900M", "-o", "2", "--model=b")
    logged = [line for line in err if "--max-memory" in line]
    assert code == 0 and [line.split(": ")[1] for line in logged] == ["a.cdc", "b.cdc"]
    assert "in tiles of 6 pixels" in logged[0] and "decoded whole" in logged[1]
    calls = bundles.codecs["b"].calls
    assert [call.get("tile") for call in calls] == [None, None, 6, 6]
    assert [call["max_memory_bytes"] for call in calls] == [3 << 29] * 2 + [900 << 20] * 2


@pytest.mark.parametrize(
    "option",
    ["--max-memory=4GiBs", "--max-memory=1e3", "--max-memory=nan", "--max-memory=0", "--max-memory=4X"]
    + ["--max-memory=G", "--max-memory=-1G"]
    + ["--steps=-1", "--steps=x", "--steps=1.5", "--seed=-1", "--seed=4294967296", "--gamma=-0.1", "--gamma=nan"]
    + ["--gamma=inf", "--gamma=x", "--max-pixels=0", "--format=gif", "--step=3", "--wrong"]
    + ["--eta=-0.1", "--eta=1.1", "--eta=nan", "--eta=x", "--tile=128", "--tile=200", "--tile=x", "--quality=50"],
)
def test_invalid_options_are_usage_errors(cdc, bundles, option):
    put("a.cdc")
    fails(cdc("decompress", "a.cdc", "--model=b", option), 2, option.split("=")[0])
    assert bundles.loaded == []


def test_max_pixels_is_checked_before_the_model_is_loaded(cdc, bundles, photo):
    put("a.cdc", size=(64, 100))
    fails(cdc("compress", "photo.png", "--max-pixels=599", "--model=b"), 1, "photo.png", "--max-pixels")
    fails(cdc("decompress", "a.cdc", "--max-pixels=6399", "--model=b"), 1, "a.cdc", "--max-pixels")
    assert bundles.loaded == []
    assert cdc("compress", "photo.png", "--max-pixels=600", "--model=b")[0] == 0


# --- standard input and output ---------------------------------------------------------------------------------------


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
    fails(cdc("compress", "-", "--model=b"), 1, "Standard input is closed.")
    monkeypatch.setattr(sys, "stdout", None)
    fails(cdc("compress", "photo.png", "-o", "-", "--model=b"), 1, "Standard output is closed.")


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
    fails(cdc("compress", "-", "-o", "a.cdc", "--model=b"), 1, "standard input: This is not an image")
    monkeypatch.setattr(sys, "stdin", Stream(b"nonsense"))
    fails(cdc("decompress", "-", "-o", "a.png", "--model=b"), 1, "standard input: ")
    assert tree() == []


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
    monkeypatch.setattr(StoringCodec, "compress", lambda self, image, **_: (_ for _ in ()).throw(error))
    fails(cdc("compress", "photo.png", "--model=b"), code, "photo.png", text)
    assert tree() == ["photo.png"]


def test_a_bug_of_ours_keeps_its_traceback(cdc, photo, monkeypatch):
    monkeypatch.setattr(StoringCodec, "compress", lambda self, image, **_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cdc("compress", "photo.png", "--model=b")
    assert tree() == ["photo.png"]


def test_interruption_is_clean(cdc, photo, monkeypatch):
    def interrupted(self, image, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(StoringCodec, "compress", interrupted)
    Path("photo.cdc").write_bytes(b"precious")
    fails(cdc("compress", "photo.png", "--force", "--model=b"), 130, "Interrupted.")
    assert tree() == ["photo.cdc", "photo.png"] and Path("photo.cdc").read_bytes() == b"precious"
