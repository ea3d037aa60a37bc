"""Distillation as a run: its argument, its stages, what they leave, and how they resume."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
from etils import epath
from PIL import Image

import cdc_jax
from cdc_jax.codec.bundle import load_bundle
from cdc_jax.errors import BundleError, CheckpointError, ConfigError, Interrupted
from cdc_jax.training import loop
from cdc_jax.training.checkpoints import Checkpoints
from cdc_jax.training.config import stored_config
from cdc_jax.training.config_checks import check_config, check_same_run
from cdc_jax.training.distillation import lineage, load_teacher, stages, with_teacher
from cdc_jax.training.export import export_workdir
from cdc_jax.training.initialization import run_weights
from tests.helpers.compact import save_compact_bundle
from tests.helpers.processes import ROOT, free_address, user_environment

get_config = runpy.run_path(str(ROOT / "configs" / "distill.py"))["get_config"]
STAGE = "stages/2-steps"


def distilling(teacher, argument, **changes):
    """configs/distill.py for a teacher, with small crops and few steps."""
    config = get_config(f"teacher={teacher},{argument}")
    small = {
        "data.crop": 64,
        "loss.unet_crop": 0,
        "data.batch_size": 2,
        "train.steps": 2,
        "train.checkpoint_every": 1,
        "train.log_every": 1,
    }
    config.update_from_flattened_dict(small | changes)
    return config


# -- the argument ------------------------------------------------------------------------------------------------------


def test_the_teacher_s_model_and_decoding_are_taken_over(random_bundle, compact_bundle, trained_workdir):
    config = distilling(random_bundle, "steps=1")
    check_config(config)
    assert (config.init_from, config.freeze_entropy) == (str(random_bundle), True)
    assert (config.model.width, config.model.decode_steps, config.model.decode_gamma) == (4, 1, 0.8)
    assert (config.distill.steps, config.distill.teacher_steps, config.distill.inputs) == (1, 2, "data")
    config = distilling(compact_bundle, "steps=5,teacher_steps=17,rho=0.1")
    check_config(config)
    assert (config.model.fold, config.model.rate_anchors, config.loss.rho) == (4, 4, 0.1)
    assert config.distill.inputs == "teacher"  # since its γ is 0
    assert distilling(compact_bundle, "steps=5,teacher_steps=17,gamma=0.8").distill.inputs == "data"
    config = distilling(trained_workdir, "steps=1")  # a run, not a bundle
    check_config(config)
    assert config.model.width == 8 and config.distill.teacher_steps == 2


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("", ConfigError, "needs teacher="),
        ("teacher=TEACHER", ConfigError, "needs steps="),
        ("teacher=nowhere,steps=1", CheckpointError, "'nowhere', which is neither a run's folder nor a bundle"),
        ("teacher=TEACHER,steps=many", ConfigError, "steps=many"),
        ("teacher=TEACHER,speed=9", ConfigError, "speed=9"),
    ],
)
def test_arguments_that_are_refused(argument, error, message, random_bundle):
    with pytest.raises(error, match=message) as raised:
        get_config(argument.replace("TEACHER", str(random_bundle)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("argument", "changes", "message"),
    [
        ("steps=4,teacher_steps=17", {}, "distill.steps is 4; it must be 1, 2, 3, 5, 9"),
        ("steps=5,teacher_steps=64", {}, "distill.teacher_steps is 64"),
        ("steps=2", {}, "distill.steps is 2; it must be below distill.teacher_steps, 2"),
        ("steps=5,teacher_steps=3", {}, "distill.steps is 5; it must be below distill.teacher_steps, 3"),
        ("steps=5,teacher_steps=16385", {}, "at most 8193"),
        ("steps=1", {"model.decode_steps": 3}, "model.decode_steps is 3"),
        ("steps=1", {"init_from": "", "freeze_entropy": False}, "needs a teacher"),
        ("steps=1", {"freeze_entropy": False}, "freeze_entropy"),
        ("steps=1", {"loss.weight_floor": 0.0}, "loss.weight_floor must be above 0"),
        ("steps=1,gamma=0", {"distill.inputs": "data"}, "distill.inputs=teacher"),
        ("steps=1", {"distill.inputs": "noise"}, "distill.inputs is 'noise'"),
    ],
)
def test_settings_that_are_refused(argument, changes, message, random_bundle):
    with pytest.raises(ConfigError, match=message) as raised:
        check_config(distilling(random_bundle, argument, **changes))
    assert "\n" not in str(raised.value)


def test_a_teacher_of_another_architecture_is_refused(random_bundle, tmp_path):
    """v has the shapes of x, so its weights would fit."""
    with pytest.raises(CheckpointError, match="another architecture"):
        load_teacher(distilling(random_bundle, "steps=1", **{"model.width": 8}))
    with pytest.raises(ConfigError, match="has model.prediction='x', not 'v'"):
        load_teacher(distilling(random_bundle, "steps=1", **{"model.prediction": "v"}))


def test_a_teacher_in_an_object_store(random_bundle, monkeypatch):
    monkeypatch.setattr("cdc_jax.training.distillation.is_remote", lambda path: True)
    assert distilling(random_bundle, "steps=1").model.width == 4


def test_corrupt_teachers_are_refused(random_bundle, tmp_path):
    shutil.copytree(random_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "config.json").write_text("{")
    with pytest.raises(BundleError, match="corrupt"):
        get_config(f"teacher={tmp_path / 'bundle'},steps=1")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        get_config(f"teacher={tmp_path / 'run'},steps=1")
    (tmp_path / "run" / "checkpoints" / "7" / "config").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "7" / "config" / "metadata").write_text("{")
    with pytest.raises(CheckpointError, match="step 7 in .* is corrupt"):
        get_config(f"teacher={tmp_path / 'run'},steps=1")


def test_the_configuration_starts_no_devices(random_bundle, trained_workdir):
    """It is read before the processes of a run join, which JAX refuses once it has devices."""
    read = "".join(f"get('teacher={teacher},steps=1'); " for teacher in (random_bundle, trained_workdir))
    script = "import runpy, jax; get = runpy.run_path('configs/distill.py')['get_config']; " + read
    script += f"jax.distributed.initialize({free_address()!r}, 1, 0); print(jax.process_count())"
    finished = subprocess.run(
        [sys.executable, "-c", script], env=user_environment(), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert finished.stdout == "1\n", finished.stderr[-3000:]


def test_stages(random_bundle, tmp_path):
    config = distilling(random_bundle, "steps=5,teacher_steps=65")
    found = [
        (stage.distill.steps, folder.relative_to(tmp_path)) for stage, folder in stages(config, epath.Path(tmp_path))
    ]
    names = [f"stages/{steps}-steps" for steps in (33, 17, 9)]
    assert found == [*zip((33, 17, 9), map(epath.Path, names), strict=True), (5, epath.Path("."))]
    for stage, _ in stages(config, epath.Path(tmp_path)):
        check_config(stage)
        assert stage.train.eval_steps == (stage.distill.steps,)
    assert lineage(config) == (65, 33, 17, 9, 5) and config.distill.steps == 5


# -- the run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of four images of blocks."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(4):
        pixels = np.kron(random.integers(0, 256, (12, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def distilled(compact_bundle, images, tmp_path_factory):
    """The workdir of a finished run from 2 steps to 1."""
    workdir = tmp_path_factory.mktemp("distilled") / "run"
    loop.train(distilling(compact_bundle, "steps=1,teacher_steps=2,gamma=0.8", **{"data.path": str(images)}), workdir)
    return workdir


@pytest.fixture(scope="module")
def student(distilled, tmp_path_factory):
    """Its bundle."""
    bundle = tmp_path_factory.mktemp("student") / "bundle"
    export_workdir(distilled, bundle)
    return bundle


def test_files_of_the_teacher_open_in_the_student(compact_bundle, student, photograph):
    teacher, codec = cdc_jax.load_codec(compact_bundle), cdc_jax.load_codec(student)
    assert (student / "coding.npz").read_bytes() == (compact_bundle / "coding.npz").read_bytes()
    data = teacher.compress(photograph[:60, :50], quality=40)
    assert codec.compress(photograph[:60, :50], quality=40) == data
    assert all(map(np.array_equal, teacher.read_symbols(data), codec.read_symbols(data)))
    assert (codec.config.decode_steps, codec.config.decode_gamma) == (1, 0.8)
    np.testing.assert_array_equal(codec.decompress(data), codec.decompress(data, steps=1))
    assert codec.decompress(data, steps=2).shape == (60, 50, 3)  # other numbers of steps work as well


def test_only_the_unet_changed(compact_bundle, student):
    before, after = load_bundle(compact_bundle).params, load_bundle(student).params
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same >= {name for name in before if name.startswith("compressor.")}
    assert not any(name.endswith("kernel") for name in same if name.startswith("unet."))


def test_the_model_card_names_the_teacher(compact_bundle, student):
    card = (student / "model_card.md").read_text()
    assert f"| distilled from | {compact_bundle.parent.name}/bundle, 2 → 1 steps, ρ = 0 |" in card
    assert "| default decode | steps: 1, γ = 0.8 |" in card and "β_rate" not in card


def test_a_stopped_run_resumes_to_the_same_bits(distilled, compact_bundle, images, tmp_path, monkeypatch):
    config = distilling(compact_bundle, "steps=1,teacher_steps=2,gamma=0.8", **{"data.path": str(images)})
    _stop_after_one_step(config, tmp_path / "run", monkeypatch)
    loop.train(config, tmp_path / "run")
    _assert_same_weights(tmp_path / "run", distilled)


def _stop_after_one_step(config, workdir, monkeypatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(Interrupted, match="after step 1"):
        patched.setattr(loop.Interruption, "requested", lambda self: True)
        loop.train(config, workdir)


def _assert_same_weights(workdir, expected) -> None:
    weights = []
    for folder in (workdir, expected):
        with Checkpoints(folder) as checkpoints:
            config = stored_config(checkpoints.restore_json(2, "config"))
            weights.append(run_weights(checkpoints, 2, config, raw=True))
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.mark.slow
def test_several_stages(compact_bundle, images, tmp_path, monkeypatch):
    """From 3 steps to 2 and 1, and once more, stopped in both stages: a finished stage is not trained again."""
    config = distilling(compact_bundle, "steps=1,teacher_steps=3,gamma=0.8", **{"data.path": str(images)})
    loop.train(config, tmp_path / "run")
    _stop_after_one_step(config, tmp_path / "stopped", monkeypatch)
    assert not (tmp_path / "stopped" / "checkpoints").exists()
    _stop_after_one_step(config, tmp_path / "stopped", monkeypatch)  # resumes the first stage, stops in the second
    loop.train(config, tmp_path / "stopped")
    for folder in (STAGE, "."):
        _assert_same_weights(tmp_path / "stopped" / folder, tmp_path / "run" / folder)
        text = (tmp_path / "stopped" / folder / "metrics.jsonl").read_text()
        assert text.count('"diffusion_loss": ') == 2 and '"bpp": ' in text

    for folder, steps in ((STAGE, "2"), (".", "2 → 1")):
        export_workdir(tmp_path / "run" / folder, tmp_path / "bundle", overwrite=True)
        bundle = load_bundle(tmp_path / "bundle")
        assert bundle.config.decode_steps == int(steps[-1])
        assert f"bundle, 3 → {steps} steps" in (tmp_path / "bundle" / "model_card.md").read_text()
        assert bundle.coding.fingerprint == load_bundle(compact_bundle).coding.fingerprint


def test_a_run_does_not_resume_with_another_teacher(distilled, compact_bundle, tmp_path):
    save_compact_bundle(tmp_path / "other", seed=9)
    with Checkpoints(distilled) as checkpoints:
        stored = checkpoints.restore_json(2, "config")
    own, other = (load_bundle(path).params for path in (compact_bundle, tmp_path / "other"))
    settings = distilling(compact_bundle, "steps=1,teacher_steps=2,gamma=0.8", **{"data.path": stored["data"]["path"]})
    with pytest.raises(ConfigError, match="started with distill.teacher_sha256"):
        check_same_run(stored, with_teacher(settings, other), distilled)
    settings.model.decode_gamma = 0.5
    with pytest.raises(ConfigError, match="started with model.decode_gamma=0.8"):
        check_same_run(stored, with_teacher(settings, own), distilled)
