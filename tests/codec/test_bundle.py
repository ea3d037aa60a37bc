"""Bundles are complete, checked, and never half-written."""

import json
import os
import shutil

import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.bundle import load_bundle, save_bundle, weights_hash
from cdc_jax.errors import BundleError
from cdc_jax.models.params import nest, unnest


@pytest.fixture()
def copy(random_bundle, tmp_path):
    return shutil.copytree(random_bundle, tmp_path / "bundle")


def test_saved_bundles_load(random_bundle):
    bundle = load_bundle(random_bundle)
    assert bundle.config.width == 4
    assert weights_hash(bundle.params) == bundle.weights_sha256
    assert not list(random_bundle.rglob("*.pkl"))


def test_re_export_keeps_the_coding_file(random_bundle, tmp_path):
    bundle = load_bundle(random_bundle)
    changed = {name: value + 0.01 for name, value in bundle.params.items()}
    save_bundle(tmp_path / "b", bundle.config, changed, provenance="a better decoder", coding=bundle.coding)
    assert (tmp_path / "b/coding.npz").read_bytes() == (random_bundle / "coding.npz").read_bytes()
    assert load_bundle(tmp_path / "b").weights_sha256 != bundle.weights_sha256


def test_an_old_file_opens_in_a_bundle_with_the_same_coding(random_bundle, random_codec, tmp_path):
    bundle = load_bundle(random_bundle)
    changed = {name: v * 1.1 if name.startswith("unet") else v for name, v in bundle.params.items()}
    save_bundle(tmp_path / "b", bundle.config, changed, provenance="a better U-Net", coding=bundle.coding)
    data = random_codec.compress(np.zeros((20, 20, 3), np.uint8))
    better = cdc_jax.load_codec(tmp_path / "b")
    np.testing.assert_array_equal(better.read_symbols(data)[1], random_codec.read_symbols(data)[1])
    assert (better.decompress(data) != random_codec.decompress(data)).any()


@pytest.mark.parametrize("part", ["coding.npz", "config.json", "weights"])
def test_a_missing_part_is_named(copy, part):
    target = copy / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(BundleError, match=part):
        load_bundle(copy)


@pytest.mark.parametrize("part", ["coding.npz", "config.json"])
def test_a_corrupt_part_is_named(copy, part):
    content = (copy / part).read_bytes()
    (copy / part).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=part):
        load_bundle(copy)


def edit_config(bundle, **changes):
    facts = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**facts, **changes}))


def test_coding_file_of_another_model(copy):
    edit_config(copy, fingerprint="00000000")
    with pytest.raises(BundleError, match="coding.npz"):
        load_bundle(copy)


def test_other_width_than_the_weights(copy):
    edit_config(copy, model={"prediction": "x", "width": 8})
    with pytest.raises(BundleError, match="channels"):
        load_bundle(copy)


def test_other_architecture_than_the_weights(copy):
    edit_config(copy, model={"prediction": "epsilon", "width": 4})
    with pytest.raises(BundleError, match="weight compressor.context_decoder"):
        load_bundle(copy)


@pytest.mark.parametrize("model", [{"widht": 1}, {"width": -1}, {"width": "a"}, 3])
def test_invalid_settings(copy, model):
    edit_config(copy, model=model)
    with pytest.raises(BundleError, match="config.json"):
        load_bundle(copy)


def test_a_newer_bundle_asks_for_an_upgrade(copy):
    edit_config(copy, bundle_version=99)
    with pytest.raises(BundleError, match="upgrade"):
        load_bundle(copy)


def test_a_folder_without_a_bundle(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path):
        with pytest.raises(BundleError, match="not a bundle"):
            load_bundle(path)


def test_weights_cut_short(copy):
    for path in (copy / "weights").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BundleError, match="weights"):
        load_bundle(copy)


def test_an_unwritable_folder(random_bundle, tmp_path):
    bundle = load_bundle(random_bundle)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BundleError, match="Cannot write"):
        save_bundle(tmp_path / "file" / "bundle", bundle.config, bundle.params, provenance="")
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_interrupted_export_leaves_nothing(random_bundle, tmp_path, monkeypatch):
    bundle = load_bundle(random_bundle)
    monkeypatch.setattr("cdc_jax.codec.bundle._model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_bundle(tmp_path / "b", bundle.config, bundle.params, provenance="")
    assert list(tmp_path.iterdir()) == []


def test_overwriting(random_bundle, tmp_path):
    bundle = load_bundle(random_bundle)
    for _ in range(2):
        save_bundle(tmp_path / "b", bundle.config, bundle.params, provenance="", overwrite=True)
    with pytest.raises(BundleError, match="exists"):
        save_bundle(tmp_path / "b", bundle.config, bundle.params, provenance="")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_nesting():
    flat = {"a.b.0": 1, "a.b.1": 2, "c": 3}
    assert nest(flat) == {"a": {"b": {"0": 1, "1": 2}}, "c": 3}
    assert unnest(nest(flat)) == flat


def test_a_bundle_does_not_reveal_where_it_was_made(random_bundle):
    """Orbax stores the folder it wrote to. A published bundle must not contain it."""
    folder = str(random_bundle.parent).encode()
    assert not [path.name for path in random_bundle.rglob("*") if path.is_file() and folder in path.read_bytes()]


def test_a_run_in_place_of_its_bundle_names_the_bundle(compact_bundle, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(compact_bundle, run / "bundle")
    for make in (lambda: None, lambda: (run / "checkpoints").mkdir(), lambda: (run / "config.json").write_text("{}")):
        make()
        with pytest.raises(BundleError, match=r"run is not a bundle, but .*run/bundle is: use that\.$"):
            load_bundle(run)
    shutil.rmtree(run / "bundle")
    with pytest.raises(BundleError, match=r"run is a training run, .* `cdc export .*run OUT_DIR`"):
        load_bundle(run)


def _largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda weights: shutil.rmtree(weights), "has no weights"),
        (lambda weights: (shutil.rmtree(weights), weights.mkdir()), "weights .*corrupt"),
        (lambda weights: (weights / "_METADATA").unlink(), "weights .*corrupt"),
        (lambda weights: (weights / "_METADATA").write_bytes(b"{"), "weights .*corrupt"),
        (lambda weights: _largest(weights).unlink(), "weights .*corrupt"),
        (lambda weights: os.truncate(_largest(weights), 1000), "weights .*corrupt"),
    ],
    ids=["missing", "empty", "no description", "corrupt description", "a file missing", "a file cut off"],
)
def test_missing_and_truncated_weights_are_called_that(compact_bundle, tmp_path, damage, words):
    bundle = shutil.copytree(compact_bundle, tmp_path / "bundle")
    damage(bundle / "weights")
    with pytest.raises(BundleError, match=words) as raised:
        load_bundle(bundle)
    message = str(raised.value)
    assert "\n" not in message and not any(word in message for word in ("NoneType", "TensorStore", "attribute", "0x"))
