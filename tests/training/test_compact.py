"""Training of the compact model: initialization by the KLT, and a frozen entropy model."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image

from cdc_jax.codec.bundle import load_bundle
from cdc_jax.models.initialization import initial_weights
from cdc_jax.runtime.sharding import make_mesh, replicated
from cdc_jax.training import initialization, loop
from cdc_jax.training.checkpoints import Checkpoints
from cdc_jax.training.config import model_config
from cdc_jax.training.export import export_workdir
from cdc_jax.training.initialization import starting_weights
from cdc_jax.training.klt import KLT
from cdc_jax.training.loop import train
from cdc_jax.training.step import new_state
from tests.helpers.compact import compact_training_config, compact_weights

TRANSFORM = "compressor.transform"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of four images of blocks."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(4):
        coarse = random.integers(0, 256, (12, 12, 3))
        fine = random.integers(-20, 20, (96, 96, 3))
        pixels = np.clip(np.kron(coarse, np.ones((8, 8, 1))) + fine, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def no_klt(monkeypatch):
    """Computing a KLT fails the test."""

    def image_klt(*_, **__):
        raise AssertionError("the KLT was computed")

    monkeypatch.setattr(initialization, "image_klt", image_klt)


def test_a_fresh_model_starts_as_the_klt_of_its_images(images, monkeypatch):
    config = compact_training_config(**{"data.path": str(images), "init.klt_patches": 3072})
    computed, image_klt = [], initialization.image_klt

    def recorded(*arguments, **options) -> KLT:
        computed.append(image_klt(*arguments, **options))
        return computed[-1]

    monkeypatch.setattr(initialization, "image_klt", recorded)
    weights = starting_weights(config).weights
    ((basis, deviations),) = computed
    np.testing.assert_allclose(weights[f"{TRANSFORM}.analysis"], basis, atol=1e-7)
    np.testing.assert_allclose(weights[f"{TRANSFORM}.synthesis"], basis.T, atol=1e-7)
    np.testing.assert_allclose(weights[f"{TRANSFORM}.deviations"], deviations, rtol=1e-6)
    assert all(np.isfinite(values).all() for values in weights.values())


def test_a_resumed_run_does_not_compute_the_klt(images, tmp_path, no_klt):
    config = compact_training_config(**{"data.path": str(images)})
    mesh = make_mesh(jax.local_devices()[:1])
    state = new_state(config, initial_weights(model_config(config), 5), mesh)
    with Checkpoints(tmp_path, sharding=replicated(mesh)) as checkpoints:
        with pytest.raises(AssertionError, match="the KLT was computed"):
            loop._restore_or_start(config, tmp_path, mesh, checkpoints)
        checkpoints.save(state._replace(step=state.step + 7), config, {"next_step": 7})
        checkpoints.wait()
        restored, data = loop._restore_or_start(config, tmp_path, mesh, checkpoints)
    assert int(restored.step) == 7 and data == {"next_step": 7}
    for name, values in state.params.items():
        np.testing.assert_array_equal(restored.params[name], values)


def test_weights_of_a_bundle_need_no_klt(compact_bundle, no_klt):
    weights = starting_weights(compact_training_config(init_from=str(compact_bundle))).weights
    np.testing.assert_array_equal(weights[f"{TRANSFORM}.analysis"], compact_weights()[f"{TRANSFORM}.analysis"])


def test_lpips_counts_from_its_first_step(monkeypatch):
    seen, perceptual = [], {"weight": np.ones(3, np.float32)}
    monkeypatch.setattr(loop, "jit_train_step", lambda *_: lambda state, images, given: (state, seen.append(given)))
    config = compact_training_config(**{"loss.rho_start_step": 2, "data.batch_size": 1})
    run_steps = loop._step_function(config, make_mesh(jax.local_devices()[:1]), perceptual)
    for step in range(4):
        run_steps(None, step, [np.zeros((1, 64, 64, 3), np.uint8)])
    assert [given.keys() for given in seen] == [set(), set(), {"weight"}, {"weight"}]
    np.testing.assert_array_equal(seen[3]["weight"], perceptual["weight"])


def test_freeze_entropy_keeps_every_weight_that_symbols_depend_on(compact_bundle, images, tmp_path, no_klt):
    """After two steps, these weights and the coding model equal those of the bundle that the run started from."""
    settings = {"init_from": str(compact_bundle), "freeze_entropy": True, "data.path": str(images)}
    before = load_bundle(compact_bundle).params
    train(compact_training_config(**settings), tmp_path / "run")
    with Checkpoints(tmp_path / "run") as checkpoints:
        saved = checkpoints.restore_params(before, 2, "weights")
    changed = {name for name in before if not np.array_equal(saved[name], before[name])}
    for part in ("encoder.", "hyper_encoder.", "hyper_decoder.", "checkerboard.", "prior."):
        assert not any(name.startswith(f"compressor.{part}") for name in changed), part
    assert {name for name in changed if name.startswith(TRANSFORM)} == {f"{TRANSFORM}.synthesis"}
    assert any(name.startswith("compressor.context_decoder.") for name in changed)
    assert any(name.startswith("unet.") for name in changed)

    export_workdir(tmp_path / "run", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "coding.npz").read_bytes() == (compact_bundle / "coding.npz").read_bytes()
    assert load_bundle(tmp_path / "bundle").weights_sha256 != load_bundle(compact_bundle).weights_sha256
