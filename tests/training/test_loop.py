"""Training as a user runs it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cdc_jax.errors import CdcError, CheckpointError, ConfigError
from cdc_jax.io.images import read_image
from tests.helpers.object_store import unreachable_store
from tests.helpers.training import run_main, tiny_config


def read_log(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


# -- the run -----------------------------------------------------------------------------------------------------------


def test_the_run_writes_all_documented_outputs(trained_workdir, photograph):
    for name in ("checkpoints", "bundle", "metrics.jsonl", "example.cdc", "example.png", "side_by_side.png"):
        assert (trained_workdir / name).exists(), name
    assert read_image(trained_workdir / "example.png").shape == photograph.shape
    sheet = read_image(trained_workdir / "side_by_side.png")
    assert sheet.shape[1] >= 2 * photograph.shape[1]


def test_the_run_prints_metrics_of_the_file(trained_workdir, photograph):
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


def test_a_workdir_that_another_run_is_in(tmp_path):
    from cdc_jax.io.folder_lock import exclusive
    from cdc_jax.training.loop import train

    with exclusive(tmp_path, "the test"), pytest.raises(CdcError, match="in use .* wait for that training run to end"):
        train(tiny_config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_two_processes_and_one_workdir(tmp_path):
    from cdc_jax.io.folder_lock import exclusive

    with exclusive(tmp_path, "the test"):
        finished = run_main(tmp_path)
    assert finished.returncode == 1 and "in use by another process" in one_line(finished)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_missing_flags_and_stray_arguments(tmp_path):
    assert "stray" in one_line(run_main(tmp_path / "run", "stray"))
    finished = run_main(tmp_path / "run", **{"train.steps": "many"})
    assert finished.returncode == 2
    one_line(finished)


def test_not_finite_is_reported_with_step_term_and_images(tmp_path):
    from cdc_jax.errors import CdcError
    from cdc_jax.training.metrics_writer import RunLog
    from cdc_jax.training.monitoring import StepMonitor

    monitor = StepMonitor(RunLog(tmp_path), lambda: 5)
    monitor.add(6, {"loss": 1.0}, [["a.png"]])
    assert monitor.wait() == {"loss": 1.0}
    monitor.add(7, {"loss": 1.0, "bpp": float("nan")}, [["a.png", "b.png", "a.png"]])
    message = r"bpp is nan at step 7, trained on a.png, b.png; the checkpoint of step 5 is kept"
    with pytest.raises(CdcError, match=message):
        monitor.add(8, {"loss": 1.0}, [["c.png"]])
    names = [f"{number}.png" for number in range(30)]
    monitor = StepMonitor(RunLog(tmp_path), lambda: None)
    monitor.add(8, {"loss": float("inf")}, [names])
    message = r"0\.png, .*7\.png and 22 more, listed in .*batch_of_step_8_0\.txt; no checkpoint was saved yet"
    with pytest.raises(CdcError, match=message):
        monitor.wait()
    assert (tmp_path / "batch_of_step_8_0.txt").read_text().split() == names


def test_the_metrics_before_a_failure_are_published(tmp_path, monkeypatch):
    """A local folder plays the object store; the loss of step 2 is NaN."""
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
    """In an object store the failure may be temporary, so it is no ConfigError."""
    from cdc_jax.errors import CdcError
    from cdc_jax.training.loop import _make_folder

    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot make the folder .*: Not a directory"):
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
