"""Which model a file is read with, and where the command line names them."""

from pathlib import Path

import numpy as np

from cdc_jax.io.images import read_image
from tests.cli.fake_codec import FINGERPRINT, OTHER, fails, put, tree


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
    assert cdc("compress", "photo.png", "-q", "b.png", "-o", "2", "--model=b")[0] == 0
    assert cdc("compress", "-o", "3", "--model=b", "--", "photo.png", "-dash.png")[0] == 0
    assert [tree(folder) for folder in "123"] == [["b.cdc", "photo.cdc"]] * 2 + [["-dash.cdc", "photo.cdc"]]
    assert Path("1.cdc").exists()
