"""The main job as a user runs it, and the recipe behind it."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from cdc_jax.errors import CheckpointError, ConfigError
from cdc_jax.io.images import read_image
from cdc_jax.training.config import check_config, check_overrides, check_same_run, default_config
from cdc_jax.training.optimizer import ema_decay, learning_rate_schedule
from tests.helpers.object_store import unreachable_store
from tests.helpers.training import run_main, tiny_config


def read_log(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


# -- the run -----------------------------------------------------------------------------------------------------------


def test_the_run_leaves_what_it_promises(trained_workdir, photograph):
    for name in ("checkpoints", "bundle", "metrics.jsonl", "example.cdc", "example.png", "side_by_side.png"):
        assert (trained_workdir / name).exists(), name
    assert read_image(trained_workdir / "example.png").shape == photograph.shape
    sheet = read_image(trained_workdir / "side_by_side.png")
    assert sheet.shape[1] >= 2 * photograph.shape[1]


def test_the_run_prints_figures_of_the_file(trained_workdir, photograph):
    output = (trained_workdir / "stdout.txt").read_text()
    size = (trained_workdir / "example.cdc").stat().st_size
    assert f"{size} bytes, {8 * size / (300 * 451):.3f} bpp" in output


def test_it_learns(trained_workdir):
    log = read_log(trained_workdir)
    losses = [line["diffusion_loss"] for line in log if "diffusion_loss" in line]
    psnr = [line["validation_psnr_db_1"] for line in log if "validation_psnr_db_1" in line]
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert psnr[-1] > psnr[0] + 4


def test_the_log_counts_images_at_each_checkpoint(trained_workdir):
    batch_size = tiny_config().data.batch_size
    counted = {line["step"]: line for line in read_log(trained_workdir) if "images_read" in line}
    for step in (60, 120):
        expected = {"read": step * batch_size, "corrupt": 0, "small": 0, "upscaled": 0}
        assert counted[step] == {"step": step, **{f"images_{name}": n for name, n in expected.items()}}


def test_the_example_decodes_to_the_image_beside_it(trained_workdir, trained_codec):
    decoded = trained_codec.decompress((trained_workdir / "example.cdc").read_bytes())
    difference = np.abs(decoded.astype(int) - read_image(trained_workdir / "example.png").astype(int))
    assert difference.max() <= 1  # two processes, compiled with different flags


def test_export_of_any_checkpoint(trained_workdir, trained_bundle, tmp_path):
    from cdc_jax.codec.bundle import load_bundle
    from cdc_jax.training.export import export_workdir

    export_workdir(trained_workdir, tmp_path / "last")
    assert load_bundle(tmp_path / "last").weights_sha256 == load_bundle(trained_bundle).weights_sha256
    export_workdir(trained_workdir, tmp_path / "middle", step=60)
    assert load_bundle(tmp_path / "middle").weights_sha256 != load_bundle(trained_bundle).weights_sha256
    with pytest.raises(CheckpointError, match="60, 120"):
        export_workdir(trained_workdir, tmp_path / "none", step=61)
    with pytest.raises(CheckpointError, match="not a training run"):
        export_workdir(tmp_path, tmp_path / "none")


def test_checkpoint_of_another_architecture_is_refused(trained_workdir):
    from cdc_jax.training.checkpoints import Checkpoints
    from cdc_jax.training.step import abstract_state

    other = abstract_state(tiny_config(**{"model.width": 4}))
    with Checkpoints(trained_workdir) as checkpoints, pytest.raises(CheckpointError, match="compressor.+shape"):
        checkpoints.restore(other, 120)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def one_line(finished):
    lines = finished.stderr.strip().splitlines()
    assert "Traceback" not in finished.stderr
    assert lines[-1].startswith("error: "), finished.stderr
    return lines[-1]


def test_unknown_setting_names_the_nearest(tmp_path):
    finished = run_main(tmp_path / "run", **{"loss.beat": 0.1})
    assert finished.returncode == 2
    assert "loss.beta" in one_line(finished)
    assert not (tmp_path / "run").exists()


def test_a_file_where_the_workdir_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    finished = run_main(tmp_path / "run")
    assert finished.returncode == 2 and "run" in one_line(finished)


def test_missing_flags_and_stray_arguments(tmp_path):
    assert "stray" in one_line(run_main(tmp_path / "run", "stray"))
    finished = run_main(tmp_path / "run", **{"train.steps": "many"})
    assert finished.returncode == 2
    one_line(finished)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data.crop": 100}, "data.crop"),
        ({"loss.unet_crop": 512}, "loss.unet_crop"),
        ({"train.steps": 0}, "train.steps"),
        ({"data.source": "nowhere"}, "data.source"),
        ({"optimizer.schedule": "linear"}, "optimizer.schedule"),
        ({"model.prediction": "z"}, "prediction"),
    ],
)
def test_impossible_settings(changes, word):
    config = tiny_config(**changes)
    with pytest.raises(ConfigError, match=word):
        check_config(config)


def test_configuration_is_locked():
    with pytest.raises((AttributeError, KeyError)):
        default_config().loss.beat = 1
    check_overrides(default_config(), iter(["loss.beta"]))
    with pytest.raises(ConfigError, match="loss.beta"):
        check_overrides(default_config(), iter(["loss.bet"]))


# -- the recipe --------------------------------------------------------------------------------------------------------


def test_learning_rates_of_the_paper():
    schedule = learning_rate_schedule(default_config())
    for step, rate in ((0, 5e-5), (99_999, 5e-5), (100_001, 1e-5), (700_000, 1e-5)):
        assert schedule(step) == pytest.approx(rate, rel=1e-5)


def test_cosine_learning_rate():
    config = tiny_config()
    schedule = learning_rate_schedule(config)
    rates = [float(schedule(step)) for step in range(config.train.steps + 1)]
    assert rates[0] < max(rates) == pytest.approx(config.optimizer.learning_rate, rel=1e-3)
    assert rates[-1] == pytest.approx(config.optimizer.final_learning_rate, rel=1e-3)


def test_ema_decay_of_the_recipe():
    config = default_config()
    decays = {k: float(ema_decay(config, jnp.int32(k))) for k in (0, 5, 10, 100, 110, 111, 120, 130, 200, 10**6)}
    assert decays[0] == decays[10] == decays[100] == decays[110] == 0  # a copy
    assert decays[5] == decays[111] == 1  # nothing
    for k in (120, 130, 200):
        assert decays[k] == pytest.approx(1 - (1 + k - 100) ** -0.75, rel=1e-5)
    assert decays[10**6] == pytest.approx(0.999)


def test_beta_rises_geometrically():
    from cdc_jax.training.loss import beta_at

    config = tiny_config(**{"loss.beta_start": 1e-6, "loss.beta": 1e-2, "loss.beta_ramp_steps": 100})
    for step, beta in ((0, 1e-6), (50, 1e-4), (100, 1e-2), (1000, 1e-2)):
        assert float(beta_at(config, jnp.int32(step))) == pytest.approx(beta, rel=1e-4)


def test_draws_are_what_the_recipe_says():
    from cdc_jax.training.loss import step_randomness

    config = tiny_config(**{"data.batch_size": 64, "loss.spread_timesteps": False, "loss.max_noise_fraction": 0.0})
    randomness = jax.jit(lambda k: step_randomness(config, k, 64))(jnp.int32(3))
    timesteps = randomness.timesteps
    assert 0 <= timesteps.min() and timesteps.max() < 8193 and len(set(timesteps.tolist())) > 50
    for uniform in (randomness.latent_noise, randomness.hyper_noise):
        assert -0.5 <= uniform.min() < -0.45 and 0.45 < uniform.max() < 0.5
    assert abs(float(randomness.noise.std()) - 1) < 0.01
    assert all(0 <= c <= 64 and c % 16 == 0 for c in randomness.corner.tolist())
    corners = {tuple(step_randomness(config, jnp.int32(k), 64).corner.tolist()) for k in range(30)}
    assert len(corners) > 5


def test_not_finite_is_told_with_step_term_and_images(tmp_path):
    from cdc_jax.errors import CdcError
    from cdc_jax.training.loop import _sync_and_check
    from cdc_jax.training.metrics_writer import RunLog

    log = RunLog(tmp_path)
    assert _sync_and_check((6, {"loss": 1.0}, ["a.png"]), None, log) == {"loss": 1.0}
    told = r"bpp is nan at step 7, trained on a.png, b.png; the checkpoint of step 5 is kept"
    with pytest.raises(CdcError, match=told):
        _sync_and_check((7, {"loss": 1.0, "bpp": float("nan")}, ["a.png", "b.png", "a.png"]), 5, log)
    names = [f"{number}.png" for number in range(30)]
    with pytest.raises(CdcError, match=r"0\.png, .*7\.png and 22 more, listed in .*batch_of_step_8_0\.txt"):
        _sync_and_check((8, {"loss": float("inf")}, names), 5, log)
    assert (tmp_path / "batch_of_step_8_0.txt").read_text().split() == names


def test_the_metrics_before_a_failure_are_published(tmp_path, monkeypatch):
    """The workdir stands in for one in an object store; the step that is made is of no account."""
    from cdc_jax.errors import CdcError
    from cdc_jax.training import loop

    pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    losses = iter([1.0, float("nan")])
    monkeypatch.setattr(loop, "jit_train_step", lambda *_: lambda state, *_: (state, {"loss": next(losses)}))
    monkeypatch.setattr("cdc_jax.training.metrics_writer.is_remote", lambda path: True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = {"model.width": 4, "data.crop": 64, "data.validation": "", "train.log_every": 1}
    with pytest.raises(CdcError, match="loss is nan at step 2"):
        loop.train(tiny_config(**settings), tmp_path / "run")
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1]


def test_a_workdir_that_cannot_be_made(tmp_path, monkeypatch):
    """In an object store that may pass, so it is no mistake in the settings."""
    from cdc_jax.errors import CdcError
    from cdc_jax.training.loop import _make_folder

    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make the folder .*: Not a directory"):
        _make_folder(tmp_path / "file" / "run")
    monkeypatch.setattr("cdc_jax.training.loop.is_remote", lambda path: True)
    with unreachable_store(monkeypatch, "mkdir"), pytest.raises(CdcError, match="run: HTTP 503") as raised:
        _make_folder(tmp_path / "run")
    assert raised.value.exit_code == 1


@pytest.mark.slow
def test_a_diverging_run_stops_and_keeps_its_checkpoint(tmp_path):
    from cdc_jax.training.checkpoints import Checkpoints

    changes = {"model.width": 4, "data.crop": 64, "data.validation": "", "train.checkpoint_every": 1}
    changes |= {"optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 0}
    finished = run_main(tmp_path / "run", **changes)
    line = one_line(finished)
    assert finished.returncode == 1 and "at step 2" in line and ".png" in line and "learning_rate" in line
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.steps() == [1]


def test_phases_of_the_recipe():
    from cdc_jax.training.phases import apply_phase

    warmup = apply_phase(default_config(), "warmup")
    assert (warmup.loss.beta, warmup.loss.rho, warmup.train.steps) == (1e-6, 0, 700_000)
    rate = apply_phase(default_config(), "rate,beta=0.0128,rho=0.9,init_from=runs/a")
    assert (rate.loss.beta, rate.loss.rho, rate.init_from, rate.train.steps) == (0.0128, 0.9, "runs/a", 1_000_000)
    assert float(ema_decay(rate, jnp.int32(10))) == pytest.approx(0.999) and float(ema_decay(rate, jnp.int32(11))) == 1
    epsilon = apply_phase(default_config(), "warmup,prediction=epsilon")
    assert epsilon.model.prediction == "epsilon" and not epsilon.ema.enabled and epsilon.optimizer.clip_norm == 0
    better_decoder = apply_phase(
        default_config(), "rate,beta=0.01,init_from=runs/a,init_weights=raw,freeze_entropy=true"
    )
    assert (better_decoder.init_weights, better_decoder.freeze_entropy) == ("raw", True)
    assert (rate.init_weights, rate.freeze_entropy) == ("ema", False)
    impossible = {"rate": "beta", "cool": "phase", "warmup,rho=much": "rho", "warmup,x=1": "x=1"}
    impossible |= {"warmup,prediction=eps": "eps", "warmup,freeze_entropy=perhaps": "perhaps"}
    for argument, word in impossible.items():
        with pytest.raises(ConfigError, match=word):
            apply_phase(default_config(), argument)


def test_a_run_goes_on_with_the_settings_that_make_it_that_run():
    stored = tiny_config().to_dict()
    check_same_run(stored, tiny_config(**{"train.steps": 7, "optimizer.learning_rate": 1e-5}), "runs/a")
    older = {name: value for name, value in stored.items() if name != "freeze_entropy"}
    check_same_run(older, tiny_config(), "runs/a")  # saved before there was such a setting
    changes = ({"init_from": "runs/b"}, {"data.batch_size": 64}, {"model.width": 16}, {"seed": 3})
    changes += ({"loss.beta": 0.0128}, {"loss.rho": 0.9}, {"loss.unet_crop": 0}, {"data.validation": ""})
    for change in changes:
        (name,) = change
        with pytest.raises(ConfigError, match=rf"runs/a was started with {name}="):
            check_same_run(stored, tiny_config(**change), "runs/a")


def test_config_files_load_and_are_possible():
    import runpy
    from pathlib import Path

    files = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
    assert files
    for path in files:
        config = runpy.run_path(str(path))["get_config"]()
        assert "Command:" in runpy.run_path(str(path))["__doc__"]
        assert isinstance(config, ml_collections.ConfigDict)
        check_config(config)


def test_spread_timesteps_cover_every_part_of_the_schedule():
    from cdc_jax.training.loss import step_randomness

    config = tiny_config(**{"data.batch_size": 8, "loss.spread_timesteps": True, "loss.max_noise_fraction": 0.0})
    randomness = [step_randomness(config, jnp.int32(k), 8).timesteps for k in range(3)]
    for timesteps in randomness:
        assert sorted((np.asarray(timesteps) * 8 // 8193).tolist()) == list(range(8))
    assert len({tuple(timesteps.tolist()) for timesteps in randomness}) == 3


def test_max_noise_fraction_is_drawn_at_the_noisiest_level():
    from cdc_jax.training.loss import step_randomness

    config = tiny_config(**{"data.batch_size": 8, "loss.max_noise_fraction": 0.25})
    timesteps = step_randomness(config, jnp.int32(0), 8).timesteps
    assert (timesteps[:2] == 8192).all() and (timesteps[2:] < 8192).all()
