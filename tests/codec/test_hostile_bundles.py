"""Bundles from strangers: refused in one line, in little time and memory, whatever is in them."""

import json
import os
import shutil
import sys
import time

import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.bundle import load_bundle, save_bundle
from cdc_jax.errors import BundleError
from tests.helpers.hostile_bundles import (
    edit_config,
    edit_description,
    edit_model,
    replace_by,
    spoil_weight,
    write_chunk,
    zstd_bomb,
)

WEIGHT = "compressor.encoder.blocks.0.block1.conv.kernel"
OTHER = "unet.final_conv.kernel"
POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
SECONDS, MIB = 5.0, 100


@pytest.fixture
def bundle(random_bundle, tmp_path):
    return shutil.copytree(random_bundle, tmp_path / "bundle")


def refusal(folder) -> str:
    """The one line that a bundle is refused with; the process takes little time and hardly more memory for it."""
    resource = pytest.importorskip("resource", reason="measures memory")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(BundleError) as raised:
        load_bundle(folder)
    message = str(raised.value)
    assert time.process_time() - start < SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MIB << (20 if sys.platform == "darwin" else 10)
    assert "\n" not in message and str(folder) in message and len(message) < 600
    return message


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 10_000, "1" * 5_000, "\xff", "", "nul", "[]", '"x"'])
def test_config_that_is_no_description(bundle, text):
    (bundle / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refusal(bundle)


def test_a_huge_config(bundle):
    with open(bundle / "config.json", "r+b") as file:
        file.truncate(1 << 40)  # without a block on the disk
    assert "config.json cannot be read (It has more than the 65536 bytes" in refusal(bundle)


@POSIX
@pytest.mark.parametrize("kind", ["pipe", "device", "nothing"])
@pytest.mark.parametrize("name", ["config.json", "coding.npz", "weights/_METADATA", "weights/manifest.ocdbt"])
def test_pipes_devices_and_dangling_links(bundle, name, kind):
    replace_by(kind, bundle / name)
    assert name.rpartition("/")[2] in refusal(bundle)


@POSIX
def test_links_to_files_are_followed_and_links_to_folders_are_not(bundle, tmp_path):
    """Hubs keep a bundle's files elsewhere, and link to them; nothing honest links to folders."""
    for i, path in enumerate([path for path in bundle.rglob("*") if path.is_file()]):
        path.symlink_to(path.rename(tmp_path / f"blob-{i}"))
    load_bundle(bundle)
    shutil.move(bundle / "weights" / "d", tmp_path / "d")
    (bundle / "weights" / "d").symlink_to(tmp_path / "d")
    assert "links to folders" in refusal(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": True},
        {"width": 4.0},
        {"width": "4"},
        {"width": 10**400},
        {"width": 20_000},
        {"fold": True},
        {"transform": "no"},
        {"transform": 1},
        {"checkerboard": None},
        {"decode_steps": 2.5},
        {"decode_steps": 10**400},
        {"decode_gamma": 10**400},
        {"decode_steps": True},
        {"decode_gamma": "0"},
        {"decode_gamma": True},
        {"decode_gamma": float("nan")},
        {"beta_max": float("inf")},
        {"beta_min": [1]},
        {"prediction": ["x"]},
        {"encoder_channels": 4},
        {"encoder_channels": [4, 4, 4, True]},
        {"encoder_channels": [[4] * 4] * 4},
        {"unet_channels": {"a": 1}},
        {"unet_channels": [1] * 3000},
        {"unet_channels": [4, 8]},
        {"rate_anchors": 65},
        {"rate_anchors": False},
    ],
)
def test_settings_of_a_wrong_type_or_size(bundle, changes):
    edit_model(bundle, **changes)
    message = refusal(bundle)
    assert "config.json does not describe a model" in message and next(iter(changes)).split("_")[-1] in message


@pytest.mark.parametrize(
    "changes", [{"bundle_version": True}, {"bundle_version": 1.0}, {"fingerprint": 7}, {"model": []}]
)
def test_facts_of_a_wrong_type(bundle, changes):
    edit_config(bundle, **changes)
    assert "config.json" in refusal(bundle)


def test_a_large_model_in_a_few_bytes(compact_bundle, tmp_path):
    """What the weights would take follows from the settings: a bundle that cannot have them is not expanded."""
    bundle = shutil.copytree(compact_bundle, tmp_path / "bundle")
    edit_model(bundle, unet_channels=[16_384] * 3)
    assert "bytes for a model of" in refusal(bundle)


@pytest.mark.parametrize("content_size", [None, 1 << 32, 3 * 3 * 3 * 4 * 4])
def test_zstd_bombs_in_chunks(bundle, content_size):
    """100 KB that give 4 GiB."""
    bomb = zstd_bomb(1 << 32, content_size)
    assert len(bomb) < 140_000
    write_chunk(bundle, WEIGHT, bomb)
    assert "weights" in refusal(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks": [1 << 20, 3, 3, 4]}, "one chunk"),
        ({"chunks": [1, 1, 1, 1]}, "one chunk"),
        ({"chunks": None}, "one chunk"),
        ({"shape": [1 << 20, 3, 3, 4], "chunks": [1 << 20, 3, 3, 4]}, "has shape (1048576, 3, 3, 4)"),
        ({"shape": [[[0] * 9] * 9] * 9}, "has shape"),
        ({"dtype": "<f8"}, "not stored as float32"),
        ({"dtype": "|O"}, "not stored as float32"),
        ({"order": "F"}, "not stored as float32"),
        ({"filters": [{"id": "delta"}]}, "not stored as float32"),
        ({"compressor": {"id": "blosc"}}, "not stored as float32"),
        ({"compressor": {"id": "bz2"}}, "not stored as float32"),
        ({"compressor": ["zstd"]}, "not stored as float32"),
        ({"padding": "x" * 100_000}, "too long"),
    ],
)
def test_descriptions_that_would_take_much(bundle, changes, message):
    edit_description(bundle, WEIGHT, **changes)
    assert message in refusal(bundle)


def test_descriptions_that_are_none(bundle):
    for data in (b"[" * 60_000, b"\xff", b"3", b'{"shape": [3'):
        from tests.helpers.hostile_bundles import store

        store(bundle).write(f"{WEIGHT}/.zarray", data).result()
        assert "weights" in refusal(bundle)


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt"])
def test_missing_and_bloated_parts_of_the_weights(bundle, name):
    path = bundle / "weights" / name
    with open(path, "r+b") as file:
        file.truncate(1 << 40)
    assert f"{name} is too large" in refusal(bundle)
    path.unlink()
    assert f"lacks {name}" in refusal(bundle)
    path.write_bytes(b"{}" if name == "_METADATA" else b"")
    assert "weights" in refusal(bundle)


def test_far_too_many_files(bundle):
    for folder in range(2):
        (bundle / "weights" / f"{folder}").mkdir()
        for i in range(1_000):
            (bundle / "weights" / f"{folder}" / f"{i}").touch()
    assert "too many files" in refusal(bundle)


@pytest.mark.parametrize("weight", [WEIGHT, OTHER])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38, 0.125])
def test_one_number_that_is_another(bundle, weight, value):
    """The hash in config.json is that of the weights: damage, and what was left out when a bundle was put together."""
    spoil_weight(bundle, weight, value)
    assert "weights have the hash" in refusal(bundle)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e38, -2e9])
def test_numbers_that_no_trained_model_has(random_bundle, bundle, value, monkeypatch):
    """An attacker's hash is right. Such a weight need not show: ReLU makes zeros of what is not a number."""
    honest = load_bundle(random_bundle)
    params = {name: np.array(array) for name, array in honest.params.items()}
    params[WEIGHT].reshape(-1)[3] = value
    with pytest.raises(BundleError, match=f"The weight {WEIGHT} has values that are not finite or beyond"):
        save_bundle(bundle.parent / "saved", honest.config, params, provenance="", coding=honest.coding)
    assert not (bundle.parent / "saved").exists()
    monkeypatch.setattr("cdc_jax.codec.bundle.check_weights", lambda *_: None)
    save_bundle(bundle, honest.config, params, provenance="", coding=honest.coding, overwrite=True)
    monkeypatch.undo()
    assert f"The weight {WEIGHT} has values that are not finite or beyond ±1e+09" in refusal(bundle)


def test_a_weights_file_with_a_header_of_its_own(random_bundle, tmp_path):
    from safetensors.numpy import save

    honest = load_bundle(random_bundle)
    params = {name: np.asarray(array, np.float16) for name, array in honest.params.items()}
    save_bundle(tmp_path / "half", honest.config, params, provenance="", half=True)
    path = tmp_path / "half" / "weights.safetensors"
    header = json.dumps({"__metadata__": {"x": "y" * 10_000_000}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "header is too large" in refusal(tmp_path / "half")
    path.write_bytes(save({**params, OTHER: params[OTHER].astype(np.float64)}))
    assert "other types than float16" in refusal(tmp_path / "half")
    path.write_bytes(save({**params, OTHER: np.zeros((1 << 20,), np.float16)}))
    assert f"the weight {OTHER} has shape (1048576,)" in refusal(tmp_path / "half")


def test_the_command_line_says_it_in_one_line(bundle, tmp_path, capsys):
    from cdc_jax.cli import main

    (bundle / "config.json").write_text("[" * 200_000)
    cdc_jax.write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    assert main(["compress", str(tmp_path / "a.png"), "--model", str(bundle)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
