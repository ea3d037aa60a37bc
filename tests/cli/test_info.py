"""`cdc info`."""

import json
import os
import sys
from pathlib import Path

from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from tests.cli.fake_codec import FINGERPRINT, POSIX, Stream, put


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


def test_quality_and_chunks_of_format_2(cdc):
    chunks = (Chunk(b"text", b"caption"), Chunk(b"Exif", bytes(20)))
    data = cdc_file.pack(FINGERPRINT, 5, 7, b"stream", level=round(37.25 * 256), chunks=chunks)
    Path("a.cdc").write_bytes(data)
    chunks = "Exif 20 bytes, text 7 bytes"
    assert f", quality 37.25, format 2, model {FINGERPRINT.hex()}, {chunks}\n" in cdc("info", "a.cdc")[1]
    facts = json.loads(cdc("info", "--json", "a.cdc")[1])
    assert facts["quality"] == 37.25 and facts["chunks"] == {"Exif": 20, "text": 7} and facts["format_version"] == 2


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
