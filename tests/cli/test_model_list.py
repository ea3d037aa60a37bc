"""`cdc models`: what can be used without a download."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from cdc_jax.codec import bundle_folder
from cdc_jax.codec.bundle import load_bundle
from tests.helpers.hub_server import folder_content


@pytest.fixture
def no_cache(monkeypatch):
    """Nothing of the hub, whatever the machine has."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def test_the_shipped_model(cdc, compact_bundle, no_cache, monkeypatch):
    monkeypatch.setattr(bundle_folder, "_SHIPPED", compact_bundle)
    code, out, err = cdc("models")
    fingerprint = load_bundle(compact_bundle).coding.fingerprint.hex()
    size = sum(path.stat().st_size for path in compact_bundle.rglob("*") if path.is_file())
    assert (code, err) == (0, [])
    assert out.split() == ["shipped", fingerprint, "quality", "0", "to", "100", f"{size / 1e6:.1f}", "MB"]
    facts = json.loads(cdc("models", "--json")[1])
    assert facts == {
        "model": "shipped",
        "fingerprint": fingerprint,
        "qualities": [0, 100],
        "bytes": size,
        "folder": str(compact_bundle),
    }


def test_no_model_at_all(cdc, no_cache, monkeypatch):
    monkeypatch.setattr(bundle_folder, "_SHIPPED", Path("nowhere"))
    assert cdc("models")[::2] == (0, ["cdc: No model is at hand: name one with --model, a folder or hf://OWNER/REPO."])
    assert cdc("models", "surplus")[0] == 2


def test_models_of_the_cache(hub, hub_client, compact_bundle, random_bundle, tmp_path):
    """Every bundle of every revision; not what only looks like one, is unfinished, or is another kind of file."""
    broken = shutil.copytree(random_bundle, tmp_path / "broken")
    (broken / "config.json").write_text('{"model": {"width": -1}}')
    hub.add("me/two", folder_content(compact_bundle, "a/") | folder_content(random_bundle, "b/"), branch="v1")
    old = hub.add("me/one", folder_content(compact_bundle))
    hub.add("me/broken", folder_content(broken))
    hub.add("me/other", {"a.pt": b"weights"})
    hub_client.fetch("hf://me/two@v1/a", "hf://me/two@v1/b", "hf://me/one", "hf://me/broken", "hf://me/other/a.pt")
    hub.add("me/one", folder_content(random_bundle))
    hub_client.fetch("hf://me/one")

    hub.requests.clear()
    done = hub_client.cdc("models", "--json")
    assert (done.returncode, done.stderr) == (0, "") and not hub.requests
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(entry["model"], entry["qualities"]) for entry in entries if entry["model"] != "shipped"] == [
        ("hf://me/one", None),
        (f"hf://me/one@{old}", [0, 100]),
        ("hf://me/two@v1/a", [0, 100]),
        ("hf://me/two@v1/b", None),
    ]
    names = [entry["model"] for entry in entries if entry["model"] != "shipped"]
    assert [Path(line) for line in hub_client.fetch(*names, HF_HUB_OFFLINE="1")] == [
        Path(entry["folder"]) for entry in entries if entry["model"] != "shipped"
    ]


def test_listing_loads_no_jax():
    code = "import sys; from cdc_jax.cli import main; main(['models']); print('jax' in sys.modules)"
    from tests.test_public_api import run_python

    assert run_python(code).splitlines()[-1] == "False"
