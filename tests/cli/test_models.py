"""The models of a command line: which of several reads a file, and which is the default."""

from pathlib import Path

import numpy as np
import pytest

from cdc_jax.io.images import read_image
from tests.cli.fake_codec import FINGERPRINT, OTHER, StoringCodec, fails, put, tree


def test_decompress_picks_the_model_by_fingerprint(cdc, bundles, photo):
    assert cdc("compress", "photo.png", "--model=other")[0] == 0
    assert cdc("decompress", "photo.cdc", "-o", "1.png", "--model=first", "--model=other")[0] == 0
    assert cdc("decompress", "--model", "first", "--model", "other", "photo.cdc", "-o", "2.png")[0] == 0
    assert len(bundles.codecs["other"].calls) == 2
    for name in ("1.png", "2.png"):
        np.testing.assert_array_equal(read_image(name), photo)


@pytest.mark.parametrize("command", ["compress", "decompress", "verify"])
def test_a_bundle_among_the_inputs_is_an_error_that_shows_the_right_form(cdc, bundles, photo, command):
    for bundle in ("first", "second"):
        Path(bundle).mkdir()
        for file in ("coding.npz", "config.json"):
            (Path(bundle) / file).touch()
    put("a.cdc")
    name = "photo.png" if command == "compress" else "a.cdc"
    for words in (["--model", "first", "second", name], [name, "--model=first", "second"], [name, "second"]):
        fails(cdc(command, *words), 2, "second is a bundle", "--model A --model B")
    assert bundles.loaded == []


def test_the_shipped_model_is_the_default(cdc, bundles, photo):
    assert cdc("compress", "photo.png")[0] == cdc("decompress", "photo.cdc", "-o", "back.png")[0] == 0
    assert bundles.loaded == ["None", "None"]  # as `load_codec` takes it
    np.testing.assert_array_equal(read_image("back.png"), photo)
    Path("a.cdc").write_bytes(StoringCodec(OTHER).compress(photo))
    fails(cdc("decompress", "a.cdc"), 3, OTHER.hex(), "the model of cdc_jax", FINGERPRINT.hex())


@pytest.mark.parametrize("words", [["compress", "photo.png", "b.png"], ["decompress", "a.cdc", "b.cdc"]])
def test_a_missing_shipped_model_is_reported_once(cdc, photo, monkeypatch, words):
    monkeypatch.setattr("cdc_jax.codec.bundle_folder._SHIPPED", Path("nowhere"))
    put("b.png"), put("a.cdc"), put("b.cdc")
    fails(cdc(*words, "--quiet", "--force", load_codec=None), 1, "without its model", "--model BUNDLE")


def test_each_model_is_loaded_once_and_only_when_needed(cdc, bundles):
    for name in "abc":
        put(f"{name}.cdc")
    assert cdc("decompress", "a.cdc", "b.cdc", "c.cdc", "--quiet", "--model=mine", "--model=other") == (0, "", [])
    assert bundles.loaded == ["mine"]


def test_a_mismatch_names_both_and_exits_with_3(cdc):
    put("a.cdc")
    put("b.cdc")
    fails(cdc("decompress", "a.cdc", "--model=other"), 3, "a.cdc", FINGERPRINT.hex(), OTHER.hex(), "other")
    code, _, err = cdc("decompress", "a.cdc", "b.cdc", "--model=other", "--quiet")
    assert code == 3 and len(err) == 2
    Path("b.cdc").write_bytes(b"nonsense")
    assert cdc("decompress", "a.cdc", "b.cdc", "--model=other", "--quiet")[0] == 1
    assert tree() == ["a.cdc", "b.cdc"]


def test_a_corrupt_bundle_is_reported_once(cdc, photo):
    put("b.png")
    code, out, err = cdc("compress", "photo.png", "b.png", "--model=corrupt")
    logged = [line for line in err if "corrupt is not a bundle" in line]
    assert (code, len(logged)) == (1, 1) and tree() == ["b.png", "photo.png"]


def test_words_may_come_in_any_order(cdc, photo):
    put("-dash.png")
    put("b.png")
    assert cdc("compress", "--model", "b", "photo.png", "-o", "1.cdc")[0] == 0
    assert cdc("compress", "photo.png", "--model", "b", "b.png", "-o", "1")[0] == 0
    assert cdc("compress", "photo.png", "--quiet", "b.png", "-o", "2", "--model=b")[0] == 0
    assert cdc("compress", "-o", "3", "--model=b", "--", "photo.png", "-dash.png")[0] == 0
    assert [tree(folder) for folder in "123"] == [["b.cdc", "photo.cdc"]] * 2 + [["-dash.cdc", "photo.cdc"]]
    assert Path("1.cdc").exists()
