"""Git LFS pointers, HTML pages and hubs' answers in place of weights: recognized, and named where weights are read."""

import shutil

import pytest

import cdc_jax
from cdc_jax.errors import BundleError, CheckpointError
from cdc_jax.io.stand_ins import stand_in
from cdc_jax.io.torch_file import read_torch_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
ANSWER = b"Entry not found"
PAGE = b"\n <!DOCTYPE html>\n<html><body>Sign in</body></html>"


@pytest.mark.parametrize(
    "content, words", [(POINTER, "Git LFS"), (PAGE, "HTML page"), (b"<HTML>", "HTML page"), (ANSWER, "hub's answer")]
)
def test_they_are_recognized(tmp_path, content, words):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert words in stand_in(path)
    with pytest.raises(CheckpointError, match=rf"weights\.pt is not a file of PyTorch weights: .*{words}") as raised:
        read_torch_file(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02", b"version 2", bytes(200)])
def test_other_files_are_none(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert stand_in(path) is None


@pytest.mark.parametrize("content", [POINTER, PAGE, ANSWER])
@pytest.mark.parametrize("name", ["coding.npz", "weights.safetensors"])
def test_bundles_name_the_file(compact_bundle, tmp_path, name, content):
    bundle = shutil.copytree(compact_bundle, tmp_path / "bundle")
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} is not a part of a bundle: it is"):
        cdc_jax.load_codec(bundle)
