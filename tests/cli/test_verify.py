"""`cdc verify` reports each file that agrees and names each that does not, without decoding images."""

import io
import json
import shutil
import sys
import types

import numpy as np
import pytest

import cdc_jax.codec.image_decoder
from cdc_jax.cli import main
from cdc_jax.codec.verification import check_machine
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.integer_hyper_decoder import IntegerHyperDecoder
from cdc_jax.errors import CdcError
from tests.entropy.npz import rewrite


@pytest.fixture
def verify(capfd, monkeypatch):
    """Runs `cdc verify`; returns (exit code, lines of standard output, lines of standard error)."""

    def no_image(*_):
        raise AssertionError("verify decoded an image")

    monkeypatch.setattr(cdc_jax.codec.image_decoder, "synthesize", no_image)

    def run(*words):
        code = main(["verify", *map(str, words)])
        out, err = capfd.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture(scope="module")
def files(random_codec, tmp_path_factory):
    """A folder with two valid files, a corrupt one and one of another model."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for name, size in (("a", (64, 64)), ("b", (30, 100))):
        data = random_codec.compress(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        (folder / f"{name}.cdc").write_bytes(data)
    (folder / "corrupt.cdc").write_bytes(data[:-6] + data[-5:])
    (folder / "other.cdc").write_bytes(cdc_jax.io.cdc_file.pack(b"\1\2\3\4", 5, 6, b"stream"))
    return folder


def test_files_that_agree(verify, files, random_bundle):
    code, out, err = verify(files / "a.cdc", files / "b.cdc", "--model", random_bundle)
    facts = json.loads((random_bundle / "config.json").read_text())
    size = (files / "b.cdc").stat().st_size
    assert code == 0 and not err and len(out) == 3
    assert out[0] == f"model {facts['fingerprint']}: its weights are intact, SHA-256 {facts['weights_sha256']}"
    assert out[1].startswith(f"{files / 'a.cdc'}: agrees with the model {facts['fingerprint']} on this machine: 64x64 ")
    assert out[2].endswith(f"100x30 pixels, {size} bytes, {2 * 17 * 16} symbols, format 1")


def test_as_json(verify, files, random_bundle):
    code, out, err = verify(files / "b.cdc", files / "corrupt.cdc", "--json", "--model", random_bundle)
    valid, corrupt = map(json.loads, out)
    facts = json.loads((random_bundle / "config.json").read_text())
    assert code == 1 and len(err) == 1
    assert valid == {
        "file": str(files / "b.cdc"),
        "agrees": True,
        "width": 100,
        "height": 30,
        "bytes": (files / "b.cdc").stat().st_size,
        "format_version": 1,
        "fingerprint": facts["fingerprint"],
        "symbols": 544,
        "weights_sha256": facts["weights_sha256"],
    }
    assert corrupt.pop("problem") in err[0] and corrupt == {"file": str(files / "corrupt.cdc"), "agrees": False}


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("corrupt.cdc", 1, ["corrupt.cdc", "checksum"]),
        ("missing.cdc", 1, ["missing.cdc", "No such file"]),
        ("other.cdc", 3, ["other.cdc", "01020304"]),
    ],
)
def test_files_that_do_not_agree(verify, files, random_bundle, name, code, words):
    returned, out, err = verify(files / name, "--model", random_bundle)
    assert returned == code and not out and len(err) == 1
    assert all(word in err[0] for word in words)


def test_one_failure_does_not_stop_the_others(verify, files, random_bundle):
    code, out, err = verify(*sorted(files.iterdir()), "--model", random_bundle)
    assert code == 1 and len(out) == 3 and len(err) == 2


def test_the_right_bundle_is_chosen(verify, files, random_bundle, tmp_path):
    other = shutil.copytree(random_bundle, tmp_path / "other")
    rewrite(other / "coding.npz", medians=np.arange(16, dtype=np.int32))
    facts = json.loads((other / "config.json").read_text())
    fingerprint = CodingModel.load(other / "coding.npz").fingerprint.hex()
    (other / "config.json").write_text(json.dumps({**facts, "fingerprint": fingerprint}))
    code, out, _ = verify(files / "a.cdc", "--model", other, "--model", random_bundle)
    assert code == 0 and facts["fingerprint"] in out[0]
    code, out, err = verify(files / "a.cdc", "--model", other)
    assert code == 3 and not out and len(err) == 1 and fingerprint in err[0]


def test_weights_with_another_hash_than_the_bundle_states(verify, files, random_bundle, tmp_path):
    bundle = shutil.copytree(random_bundle, tmp_path / "bundle")
    facts = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**facts, "weights_sha256": "0" * 64}))
    code, out, err = verify(files / "a.cdc", "--model", bundle)
    assert code == 1 and not out and len(err) == 1
    assert str(bundle) in err[0] and facts["weights_sha256"][:16] in err[0] and "0" * 16 in err[0]


def test_a_machine_whose_products_are_not_exact(random_codec, monkeypatch):
    model = random_codec.coding.latents
    z = np.random.default_rng(0).integers(-9, 10, (2, 2, 16)).astype(np.int32)
    check_machine(model, z)
    monkeypatch.setattr(
        IntegerHyperDecoder, "matmul", lambda _, x, matrix: (x.astype("f4") @ matrix.astype("f4")).astype("f8")
    )
    with pytest.raises(CdcError, match="machine's float64 .* not exact"):
        check_machine(model, z)


def test_standard_input(verify, files, random_bundle, monkeypatch):
    stdin = types.SimpleNamespace(buffer=io.BytesIO((files / "a.cdc").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, _ = verify("-", "--model", random_bundle)
    assert code == 0 and out[1].startswith("-: agrees")


def test_the_limit_on_pixels(verify, files, random_bundle):
    code, out, err = verify(files / "b.cdc", "--model", random_bundle, "--max-pixels=6000")
    assert code == 1 and not out and "--max-pixels" in err[0]


def test_usage(verify, files, monkeypatch, tmp_path):
    assert verify("--model", "bundle")[0] == 2
    monkeypatch.setattr("cdc_jax.codec.bundle_folder._SHIPPED", tmp_path)
    code, out, err = verify(files / "a.cdc")
    assert code == 1 and not out and len(err) == 1 and "without its model" in err[0]
