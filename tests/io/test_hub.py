"""Names on the hub: what they mean, and what a download promises whatever the network does."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.errors import BundleError, CheckpointError
from cdc_jax.io.hub import HubName, fetch_file, fetch_folder, is_hub_name, parse

FILES = {
    "config.json": b"{}",
    "coding.npz": np.random.default_rng(0).bytes(5_000),
    "weights.safetensors": np.random.default_rng(1).bytes(300_000),
    "big.pt": np.random.default_rng(2).bytes(2_000),
    "notes.txt": b"not a bundle's",
}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("hf://me/model", HubName("me/model")),
        ("hf://me/model/", HubName("me/model")),
        ("hf://me/model@v1.0", HubName("me/model", "v1.0")),
        ("hf://me/model@refs/pr/3", HubName("me/model", "refs/pr/3")),
        ("hf://me/model@refs/pr/3/a/b", HubName("me/model", "refs/pr/3", "a/b")),
        ("hf://me/my.model_2/sub/folder/", HubName("me/my.model_2", None, "sub/folder")),
        ("hf://me/model@v1/weights-x@2.pt", HubName("me/model", "v1", "weights-x@2.pt")),
    ],
)
def test_names(name, place):
    assert is_hub_name(name) and parse(name) == place
    assert str(place) == name.rstrip("/")


@pytest.mark.parametrize(
    "name", ["hf://", "hf://me", "hf://me/", "hf:///model", "hf://me/model@", "hf://me/../x", "hf://me/model/../x",
             "hf://me/model//x", "hf://me/mo del", "hf://../model", "hf://me/model\n"],
)  # fmt: skip
def test_what_is_no_name(name):
    with pytest.raises(BundleError, match="no name on the hub: write hf://OWNER/REPO"):
        parse(name)
    with pytest.raises(CheckpointError, match="names no file on the hub"):
        fetch_file(name)


def test_paths_are_no_names(tmp_path):
    assert not any(map(is_hub_name, ["runs/mine", "hf", "gs://bucket/run", Path("hf://me/model"), tmp_path, None]))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"^hf://me/model needs .* huggingface_hub: pip install '\.\[hub\]'\.$"):
        fetch_folder("hf://me/model", ["*"])
    with pytest.raises(CheckpointError, match=r"^hf://me/model/a\.pt needs .* pip install '\.\[hub\]'\.$"):
        fetch_file("hf://me/model/a.pt")


def downloads(hub) -> int:
    return sum(count for (method, path), count in hub.requests.items() if method == "GET" and "/resolve/" in path)


def sha256_of(folder: str) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


def test_download_cache_revision_and_offline(hub, hub_client):
    changed = {**FILES, "config.json": b'{"a": 1}'}
    hub.add("me/model", {f"v/{name}": data for name, data in changed.items()}, branch="v1")
    commit = hub.add("me/model", FILES)
    bundle = {name: hashlib.sha256(FILES[name]).hexdigest() for name in list(FILES)[:3]}

    main, tagged, file = hub_client.fetch("hf://me/model", "hf://me/model@v1/v", "hf://me/model/big.pt")
    assert sha256_of(main) == bundle | {"big.pt": hashlib.sha256(FILES["big.pt"]).hexdigest()}
    assert Path(main).name == commit and Path(file).read_bytes() == FILES["big.pt"]
    assert sha256_of(tagged) == bundle | {"config.json": hashlib.sha256(changed["config.json"]).hexdigest()}
    assert downloads(hub) == 5  # the large files of both revisions are the same, and fetched once

    names = ["hf://me/model", "hf://me/model@v1/v", f"hf://me/model@{commit}", "hf://me/model/big.pt"]
    assert hub_client.fetch(*names) == [main, tagged, main, file]
    assert downloads(hub) == 5
    hub.requests.clear()
    assert hub_client.fetch(*names, HF_HUB_OFFLINE="1") == [main, tagged, main, file]
    missing = hub_client.fetch("hf://me/other", "hf://me/model@v2", "hf://me/other/big.pt", HF_HUB_OFFLINE="1")
    assert all("not complete in the cache, and HF_HUB_OFFLINE forbids" in line for line in missing)
    assert not hub.requests

    newer = hub.add("me/model", changed)
    assert Path(hub_client.fetch("hf://me/model")[0]).name == newer


def test_what_the_hub_does_not_have(hub, hub_client):
    hub.add("me/model", {"sub/config.json": b"{}"})
    names = ["hf://me/nothing", "hf://me/model@v2", "hf://me/model", "hf://me/model/sub", "hf://me/model/a.pt"]
    lines = hub_client.fetch(*names)
    for line, name, words in zip(
        lines, names, ["no such repository", "no such revision", "lacks", "lacks", "no such file"], strict=True
    ):
        assert re.match(f"(Bundle|Checkpoint)Error: {name}", line) and words in line


def test_without_a_network(hub, hub_client):
    hub.add("me/model", FILES)
    [folder] = hub_client.fetch("hf://me/model")
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}  # the port "discard", where nobody listens
    cached, model, file = hub_client.fetch("hf://me/model", "hf://me/other", "hf://me/other/a.pt", **nowhere)
    assert cached == folder
    for line in (model, file):
        assert "not in the cache, and the hub cannot be reached (" in line and "refused" in line


def test_private_repositories_and_the_token(hub, hub_client):
    hub.add("me/secret", FILES)
    hub.private.add("me/secret")
    wrong = "hf_" + "wrong" * 7
    names = ["hf://me/secret", "hf://me/secret/big.pt", "hf://me/other"]
    for token in (None, wrong):
        lines = hub_client.fetch(*names, **({"HF_TOKEN": token} if token else {}))
        assert all("only for those who are logged in" in line for line in lines)
        assert not any(wrong in line or hub.token in line for line in lines)
    assert set(hub.authorizations) == {None, f"Bearer {wrong}"}
    lines = hub_client.fetch(*names, HF_TOKEN=hub.token)
    assert sha256_of(lines[0]) and Path(lines[1]).is_file() and "no such repository" in lines[2]
    assert hub.token not in "".join(lines)


def test_no_failure_shows_the_token(hub, hub_client, tmp_path):
    """Of a download or an upload: nothing there, no network, a changed byte, a connection that keeps breaking."""
    hub.add("me/model", FILES)
    hub.swapped["config.json"], hub.cuts["coding.npz"] = b"[]", (0, 1000)
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    said = []
    for changes in ({}, nowhere, {"HF_HUB_OFFLINE": "1"}):
        token = {"HF_TOKEN": hub.token}
        said += hub_client.fetch("hf://me/model", "hf://me/none", "hf://me/none/a.pt", **token, **changes)
        export = hub_client.cdc("export", tmp_path, "hf://me/model", **token, **changes)
        assert export.returncode == 1
        said += [export.stdout, export.stderr]
    hub.cuts.clear()
    said += hub_client.fetch("hf://me/model", HF_TOKEN=hub.token)
    assert "is not the file that the hub has" in said[-1]
    assert f"Bearer {hub.token}" in hub.authorizations and hub.token not in "".join(said)


@pytest.mark.parametrize("file", ["config.json", "weights.safetensors"])
def test_a_changed_byte_is_refused(hub, hub_client, file):
    """Of the same length, so that the library does not notice; whether it changed on its way or in the cache."""
    hub.add("me/model", FILES)
    hub.swapped[file] = FILES[file][:-1] + bytes([FILES[file][-1] ^ 1])
    [line] = hub_client.fetch("hf://me/model")
    assert line.startswith(f"BundleError: hf://me/model: {file} is not the file that the hub has: delete ")
    blob = Path(re.search(r"delete (.*), and try again", line)[1])
    hub.swapped.clear()
    assert hub_client.fetch("hf://me/model", HF_HUB_OFFLINE="1") == [line]
    blob.unlink()
    [folder] = hub_client.fetch("hf://me/model")
    assert Path(folder, file).read_bytes() == FILES[file]


def test_a_connection_that_breaks_once_is_resumed(hub, hub_client):
    hub.add("me/model", FILES)
    hub.cuts["weights.safetensors"] = (100_000, 1)
    [folder] = hub_client.fetch("hf://me/model")
    assert Path(folder, "weights.safetensors").read_bytes() == FILES["weights.safetensors"]
    assert hub.cuts["weights.safetensors"] == (100_000, 0) and downloads(hub) == 4


def test_a_connection_that_keeps_breaking(hub, hub_client):
    hub.add("me/model", FILES)
    hub.cuts["weights.safetensors"] = (0, 1000)
    [line] = hub_client.fetch("hf://me/model")
    assert line.startswith("BundleError: hf://me/model: The hub cannot be used: ")
    hub.cuts.clear()
    [folder] = hub_client.fetch("hf://me/model")
    assert Path(folder, "weights.safetensors").read_bytes() == FILES["weights.safetensors"]


def test_a_download_that_is_killed(hub, hub_client):
    """The next one does not take what is there for the whole."""
    hub.add("me/model", FILES)
    hub.stalls["weights.safetensors"] = 150_000
    code = "import sys; from cdc_jax.codec.bundle_folder import bundle_folder; bundle_folder(sys.argv[1])"
    command = [sys.executable, "-c", code, "hf://me/model"]
    with subprocess.Popen(command, env=hub_client.environment(), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not hub.stalled.is_set() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert hub.stalled.is_set()
    hub.stalls.clear()
    assert "not complete" in hub_client.fetch("hf://me/model", HF_HUB_OFFLINE="1")[0]
    [folder] = hub_client.fetch("hf://me/model")
    assert Path(folder, "weights.safetensors").read_bytes() == FILES["weights.safetensors"]
