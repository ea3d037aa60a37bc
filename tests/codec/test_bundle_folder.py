"""Bundles by name: a folder, the package's own, or one of the hub, which are used and made alike."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.codec import bundle_folder as module
from cdc_jax.codec.bundle import load_bundle, save_bundle, weights_hash
from cdc_jax.codec.bundle_folder import bundle_folder, is_bundle
from cdc_jax.codec.bundle_weights import round_to_half
from cdc_jax.errors import BundleError
from cdc_jax.io.images import write_image
from tests.helpers.golden import Golden
from tests.helpers.hub_server import folder_content

SAVE = """
import sys
from cdc_jax.codec.bundle import load_bundle, save_bundle, weights_hash
from cdc_jax.errors import CdcError
bundle = load_bundle(sys.argv[1])
for words in sys.argv[2:]:
    name, *options = words.split()
    try:
        save_bundle(name, bundle.config, bundle.params, provenance="Random weights.", license="cc0-1.0",
                    half="half" in options, overwrite="overwrite" in options)
    except CdcError as error:
        print(error)
"""
START = """
import sys
from cdc_jax.training.initialization import starting_weights
from tests.helpers.training import tiny_config
from cdc_jax.errors import CdcError
for name in sys.argv[1:]:
    try:
        print(len(starting_weights(tiny_config(**{"model.width": 4, "init_from": name})).weights))
    except CdcError as error:
        print(error)
"""


def test_folders_and_the_shipped_model(random_bundle, monkeypatch):
    for name in ("runs/mine", Path("runs/mine")):
        assert bundle_folder(name) == Path("runs/mine")
    monkeypatch.setattr(module, "_SHIPPED", random_bundle)
    assert bundle_folder(None) == random_bundle
    monkeypatch.setattr(module, "_SHIPPED", Path("nowhere"))
    with pytest.raises(BundleError, match="came without its model"):
        bundle_folder(None)


def test_the_command_takes_a_name(hub, hub_client, compact_bundle, compact_codec, tmp_path):
    hub.add("me/tiny", folder_content(compact_bundle, "models/a/"))
    image = np.random.default_rng(0).integers(0, 256, (30, 70, 3), np.uint8)
    write_image(tmp_path / "photo.png", image)
    data, decoded, name = tmp_path / "photo.cdc", tmp_path / "decoded.png", "hf://me/tiny/models/a"
    done = hub_client.cdc("compress", tmp_path / "photo.png", "-q", 30, "--model", name, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert data.read_bytes() == compact_codec.compress(image, quality=30)
    options = ["--model", name, "--quiet"]
    done = hub_client.cdc("decompress", data, "-o", decoded, *options, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr) == (0, "") and decoded.is_file()

    for words, code, message in (
        (["verify", data, "--model", "hf://me/nothing"], 1, "hf://me/nothing: The hub has no such repository"),
        (["decompress", data, name], 2, f"input {name} is a bundle: give --model"),
    ):
        done = hub_client.cdc(*words, HF_TOKEN=hub.token)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert message in done.stderr and hub.token not in done.stderr


def test_our_own_hashes_are_checked_too(hub, hub_client, compact_bundle, tmp_path):
    """The hub's hashes agree with what it sends, but it is not what the bundle was made with."""
    save_bundle(tmp_path / "b", *weights_of(compact_bundle), provenance="", half=True)
    files = folder_content(tmp_path / "b")
    for part in ("weights.safetensors", "coding.npz"):
        changed = bytearray(files[part])
        changed[-1 if part == "weights.safetensors" else len(changed) // 2] ^= 1
        hub.add(f"me/{part}", {**files, part: bytes(changed)})
    hub.add("me/whole", files)
    code = "import sys; from cdc_jax.codec.bundle import load_bundle; from cdc_jax.codec.bundle_folder import *\n"
    code += "for name in sys.argv[1:]:\n    try: print(load_bundle(bundle_folder(name)).weights_sha256)\n"
    code += "    except BundleError as error: print(error)"
    done = hub_client.run("-c", code, "hf://me/weights.safetensors", "hf://me/coding.npz", "hf://me/whole")
    weights, coding, whole = done.stdout.splitlines()
    assert "The weights have the hash" in weights and "config.json has" in weights
    assert "coding.npz" in coding
    assert whole == json.loads(files["config.json"])["weights_sha256"]


def weights_of(folder: Path):
    bundle = load_bundle(folder)
    return bundle.config, bundle.params


def test_a_bundle_is_uploaded_with_its_card(hub, hub_client, compact_bundle, tmp_path):
    def save(token, *saves):
        done = hub_client.run("-c", SAVE, compact_bundle, *saves, HF_TOKEN=token)
        assert (done.returncode, done.stderr) == (0, "") and token not in done.stdout
        return done.stdout.splitlines()

    [refused] = save("hf_" + "wrong" * 7, "hf://me/tiny")
    assert "hf://me/tiny: The hub cannot be used: " in refused and "401" in refused
    assert not hub.has_repository("me/tiny")

    assert save(hub.token, "hf://me/tiny@draft/sub", "hf://me/tiny") == []
    local, uploaded = folder_content(compact_bundle), hub.files("me/tiny")
    assert {"sub/README.md", "sub/coding.npz", "sub/config.json"} < set(hub.files("me/tiny", "draft"))
    assert [name for name in uploaded if not name.startswith("weights/")] == ["README.md", "coding.npz", "config.json"]
    assert uploaded["coding.npz"] == local["coding.npz"] and uploaded["config.json"] == local["config.json"]
    header, card = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", uploaded["README.md"].decode(), flags=re.DOTALL).groups()
    assert "license: cc0-1.0" in header.splitlines() and "library_name: cdc_jax" in header.splitlines()
    assert "- image-compression" in header
    assert card == local["model_card.md"].decode().replace("random weights, for tests", "Random weights.")

    [folder] = hub_client.fetch("hf://me/tiny")  # orbax reads through the cache's links
    assert is_bundle(folder) and load_bundle(folder).config == load_bundle(compact_bundle).config

    [kept] = save(hub.token, "hf://me/tiny half", "hf://me/tiny@draft/sub half overwrite")
    assert "hf://me/tiny has a bundle already, which was kept" in kept
    assert hub.files("me/tiny") == uploaded
    names = ["README.md", "coding.npz", "config.json", "weights.safetensors"]
    assert sorted(hub.files("me/tiny", "draft")) == ["sub/" + name for name in names]


def test_training_starts_from_a_name(hub, hub_client, random_bundle):
    hub.add("me/start", folder_content(random_bundle))
    done = hub_client.run("-c", START, "hf://me/start", "hf://me/nothing")
    assert done.stdout.splitlines() == [
        str(len(load_bundle(random_bundle).params)),
        "hf://me/nothing: The hub has no such repository, or only for those who are logged in.",
    ], done.stderr


def test_a_released_checkpoint_is_fetched(hub, hub_client, shared_dir, tmp_path):
    checkpoint = Golden("x", shared_dir / "golden").checkpoint
    hub.add("authors/params", {"x_param/model.pt": checkpoint.read_bytes()})
    done = hub_client.cdc("import-torch", "hf://authors/params/x_param/model.pt", tmp_path / "out", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert "`model.pt`" in (tmp_path / "out" / "model_card.md").read_text("utf-8")
    done = hub_client.cdc("import-torch", "hf://authors/params/x_param/other.pt", tmp_path / "out2")
    assert done.returncode == 1
    assert done.stderr == "cdc: hf://authors/params/x_param/other.pt: The repository has no such file.\n"


@pytest.mark.slow
def test_a_run_is_exported_to_the_hub_in_float16(hub, hub_client, trained_workdir, trained_bundle):
    words = ["export", trained_workdir, "hf://me/run", "--float16", "--license", "mit"]
    done = hub_client.cdc(*words, HF_TOKEN=hub.token)
    assert (done.returncode, done.stderr) == (0, f"cdc: {trained_workdir} -> hf://me/run\n")
    assert sorted(hub.files("me/run")) == ["README.md", "coding.npz", "config.json", "weights.safetensors"]
    card = hub.files("me/run")["README.md"].decode()
    assert "license: mit" in card.splitlines() and "License of the weights: mit." in card
    done = hub_client.cdc(*words, HF_TOKEN=hub.token)
    assert done.returncode == 1 and done.stderr.endswith("replace it (--force).\n")

    [folder] = hub_client.fetch("hf://me/run")
    rounded = round_to_half(load_bundle(trained_bundle).params)
    assert weights_hash(load_bundle(folder).params) == weights_hash(rounded)
