"""Command lines that are refused before any work, and files that are kept."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from cdc_jax.errors import ImageError
from cdc_jax.io import cdc_file
from cdc_jax.io.images import read_image
from tests.cli.fake_codec import fails, put, tree


@pytest.mark.parametrize(
    "words, expected",
    [
        (["other/photo.png", "-o", "other/photo.png"], ["other/photo.png", "also an input"]),
        (["other/photo.png", "-o", "link.png", "--force"], ["link.png", "also an input"]),
        (["-", "-o", "out-folder"], ["out-folder", "folder", "standard input has no name"]),
        (["-", "-o", "new-folder/"], ["new-folder/", "folder", "standard input has no name"]),
        (["other/photo.png", "-o", "x.jpg"], ["x.jpg", "suffix is an image format's", ".cdc"]),
        (["other/photo.png", "--steps=3"], ["--steps", "--min-psnr"]),
        (["other/photo.png", "--seed=3", "--target-bpp=1"], ["--seed", "--min-psnr"]),
        (["other/photo.png", "--gamma=0"], ["--gamma", "--min-psnr"]),
        (["other/photo.png", "--bfloat16"], ["--bfloat16", "--min-psnr"]),
        (["other", "-o", "odd.cdc", "--force"], ["odd.cdc", "is a file"]),
        (["other/photo.png", "odd.cdc", "-o", "odd.cdc", "--force"], ["odd.cdc", "is a file"]),
        (["other/photo.png", "-"], ["'-'"]),
        (["other", "-o", "-"], ["'-'"]),
        (["other/photo.png", "--model=other"], ["one --model"]),
        ([], ["No input files"]),
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


@pytest.mark.parametrize("words", [[], ["squash"], ["compress"], ["compress", "a.png", "--model"], ["info"]])
def test_usage_errors(cdc, words):
    fails(cdc(*words), 2, "--help")


def test_unknown_arguments_are_named_with_the_usage(cdc):
    expected = "cdc: Unrecognized arguments: -q; usage: cdc info FILE... [--json] (see 'cdc info --help')."
    assert cdc("info", "-q", "a.cdc") == (2, "", [expected])


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


@pytest.mark.parametrize("output", ["missing/a.cdc", "photo.png/a.cdc", "photo.png/"])
def test_paths_that_cannot_be_written_to(cdc, bundles, photo, output):
    fails(cdc("compress", "photo.png", "-o", output, "--force", "--model=b"), 1, output)
    assert tree() == ["photo.png"] and bundles.loaded == []


@pytest.mark.parametrize("words", [["compress", "in", "-q", "3"], ["decompress", "files"]])
def test_an_unwritable_output_folder_is_one_line_before_the_work(cdc, bundles, words):
    put("in/a.png"), put("in/b.png"), put("files/a.cdc"), put("files/b.cdc")
    Path("place").touch()
    fails(cdc(*words, "-o", "place/deep", "--model=every-rate"), 1, "place/deep", "is a file")
    assert bundles.loaded == []


def test_a_folder_where_the_output_should_be(cdc, photo):
    Path("photo.cdc").mkdir()
    fails(cdc("compress", "photo.png", "--force", "--model=b"), 1, "photo.cdc", "folder")


def test_a_file_where_an_output_folder_should_be(cdc):
    put("in/sub/a.png")
    put("in/b.png")
    Path("out").mkdir()
    Path("out/sub").write_bytes(b"precious")
    code, _, err = cdc("compress", "in", "-o", "out", "--quiet", "--model=b")
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
    fails(cdc("info", "folder"), 1, "folder", "no .cdc file")
    assert not Path("out.png").exists()


def test_a_corrupt_image_is_one_line_also_where_libraries_write_their_own(cdc, capfd):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8))
    image.save("a.tif", compression="tiff_lzw")
    data = bytearray(Path("a.tif").read_bytes())
    start = TiffImagePlugin.TiffImageFile("a.tif").tag_v2[273][0]
    data[start + 100 : start + 200] = b"\xff" * 100
    Path("a.tif").write_bytes(data)
    with pytest.raises(ImageError):
        read_image("a.tif")
    assert "not yet in table" in capfd.readouterr().err  # libtiff's
    fails(cdc("compress", "a.tif", "--model=b"), 1, "a.tif", "corrupt")
