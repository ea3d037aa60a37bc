"""What a file carries beside its pixels: `--drop-alpha`, `--keep-metadata`, what is restored and what is reported."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.images import read_contents
from cdc_jax.io.metadata import read_metadata
from tests.cli.fake_codec import FINGERPRINT, fails, tree
from tests.io.image_files import BLUE, GREEN, RED, rgb_profile

PROFILE = rgb_profile(BLUE, GREEN, RED, gamma=1.0)


@pytest.fixture
def photo(tmp_path):
    """RGBA, on its side, with a profile and EXIF data; uint8 [30, 20, 4] upright."""
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.fromarray(image).save(tmp_path / "photo.png", exif=exif, icc_profile=PROFILE)
    return np.rot90(image, -1)


def types(path):
    return [chunk.type for chunk in cdc_file.unpack(Path(path).read_bytes()).chunks]


def test_alpha_is_kept_unless_dropped(cdc, photo):
    assert cdc("compress", "photo.png", "--model=b", "-o", "a.cdc", "--quiet") == (0, "", [])
    assert cdc("compress", "photo.png", "--model=b", "-o", "b.cdc", "--drop-alpha", "--quiet") == (0, "", [])
    assert (types("a.cdc"), types("b.cdc")) == ([b"ALPH"], [])
    assert cdc("decompress", "a.cdc", "b.cdc", "--model=b", "--quiet") == (0, "", [])
    np.testing.assert_array_equal(read_contents("a.png").alpha, photo[..., 3])
    assert Image.open("b.png").mode == "RGB"
    code, _, err = cdc("compress", "photo.png", "--model=b", "-o", "c.cdc")
    assert code == 0 and not any("warning" in line for line in err)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_opaque_image_makes_the_file_that_it_would_make_without_a_channel(cdc, mode):
    Image.new("RGB", (9, 5), (1, 2, 3)).convert(mode).save("a.png")
    assert cdc("compress", "a.png", "--model=b", "--quiet") == (0, "", [])
    assert cdc_file.unpack(Path("a.cdc").read_bytes()).version == 1


@pytest.mark.parametrize("format", ["jpeg", "bmp"])
@pytest.mark.parametrize("several", [False, True])
def test_one_line_says_that_alpha_was_dropped(cdc, photo, format, several):
    assert cdc("compress", "photo.png", "--model=b", "--quiet")[0] == 0
    names = ["photo.cdc"]
    if several:
        Image.new("RGB", (9, 5)).save("plain.png")
        assert cdc("compress", "plain.png", "--model=b", "--quiet")[0] == 0
        names.append("plain.cdc")
    code, _, err = cdc("decompress", *names, "--format", format, "--model=b")
    warnings = [line for line in err if "warning" in line]
    assert code == 0
    assert warnings == [f"cdc: warning: photo.cdc: The alpha channel was dropped, since {format} has none."]
    assert cdc("decompress", *names, "--format", format, "--model=b", "--quiet", "--force") == (0, "", [])


def test_metadata_is_kept_on_request_and_restored(cdc, photo):
    assert cdc("compress", "photo.png", "--model=b", "--quiet") == (0, "", [])
    assert not read_metadata("photo.cdc")
    assert cdc("compress", "photo.png", "--model=b", "--quiet", "--force", "--keep-metadata") == (0, "", [])
    assert types("photo.cdc") == [b"ALPH", b"EXIF", b"ICCP"]
    for name in ("out.png", "out.webp", "out.tiff"):
        code, _, err = cdc("decompress", "photo.cdc", "-o", name, "--model=b")
        assert code == 0 and len(err) == 1
        back = read_contents(name, keep_metadata=True)
        np.testing.assert_array_equal(np.dstack([back.pixels, back.alpha]), photo)
        assert back.metadata.icc_profile == PROFILE and b"Maker" in back.metadata.exif
    code, _, err = cdc("decompress", "photo.cdc", "-o", "out.bmp", "--model=b")
    assert code == 0 and err[0].startswith(
        "cdc: warning: photo.cdc: The alpha channel was dropped, since bmp has none. "
    )
    assert err[0].endswith("The EXIF data and color profile were left out, since bmp cannot hold them.")


def test_what_cannot_be_kept_is_a_warning(cdc):
    Image.new("RGB", (4, 4)).save("a.png", exif=b"Exif\0\0garbage that is no TIFF header")
    code, _, err = cdc("compress", "a.png", "--model=b", "--keep-metadata")
    assert code == 0 and err[0] == "cdc: warning: a.png: The EXIF data is corrupt and was left out."


def test_targets_count_what_is_kept(cdc, photo):
    assert cdc("compress", "photo.png", "--model=every-rate", "-q0", "--quiet")[0] == 0
    limit = Path("photo.cdc").stat().st_size + 50
    assert cdc("compress", "photo.png", "--model=every-rate", f"--target-bytes={limit}", "--quiet", "--force")[0] == 0
    assert types("photo.cdc") == [b"ALPH"] and limit - 5 < Path("photo.cdc").stat().st_size <= limit


def test_info_lists_chunks(cdc, photo):
    assert cdc("compress", "photo.png", "--model=b", "--keep-metadata", "--quiet")[0] == 0
    sizes = {chunk.type.decode(): len(chunk.data) for chunk in cdc_file.unpack(Path("photo.cdc").read_bytes()).chunks}
    listed = ", ".join(f"{kind} {size} bytes" for kind, size in sizes.items())
    assert cdc("info", "photo.cdc")[1].endswith(f"model {FINGERPRINT.hex()}, {listed}\n")
    assert json.loads(cdc("info", "photo.cdc", "--json")[1])["chunks"] == sizes


def test_corrupt_chunks_are_one_line_and_write_nothing(cdc, photo):
    assert cdc("compress", "photo.png", "--model=b", "--quiet")[0] == 0
    header = cdc_file.unpack(Path("photo.cdc").read_bytes())
    Path("photo.png").unlink()
    fields = header.fingerprint, header.height, header.width, header.stream
    [good] = header.chunks
    bad = {
        "cut": (Chunk(b"ALPH", good.data[:-4]),),
        "garbage": (Chunk(b"ALPH", b"garbage"),),
        "large": (Chunk(b"XMPP", bytes(2**20 + 1)),),
    }
    for name, chunks in bad.items():
        Path(f"{name}.cdc").write_bytes(cdc_file.pack(*fields, chunks=chunks))
        for format in ("png", "jpeg"):
            fails(cdc("decompress", f"{name}.cdc", "--format", format, "--model=b"), 1, f"{name}.cdc", "corrupt")
    assert [name for name in tree() if not name.endswith(".cdc")] == []
