"""Runs that were started under former names of settings, metrics and the data's state."""

from __future__ import annotations

import json
from pathlib import Path

import ml_collections
import pytest

from cdc_jax.errors import ConfigError
from cdc_jax.main import main
from cdc_jax.models.initialization import initial_weights
from cdc_jax.training.checkpoints import Checkpoints
from cdc_jax.training.config import default_config, model_config
from cdc_jax.training.config import stored_config as read_stored_config
from cdc_jax.training.config_checks import check_config, check_overrides, check_same_run
from cdc_jax.training.metrics_writer import RunLog
from cdc_jax.training.old_names import OLD_NAMES
from cdc_jax.training.step import new_state
from tests.helpers.processes import ROOT
from tests.helpers.training import tiny_config

RENAMED = {
    "data.validation": "",
    "data.max_corrupt_fraction": 0.01,
    "ema.warmup": True,
    "loss.max_noise_gamma": 0.8,
    "loss.max_noise_fraction": 0.5,
    "loss.silent_fraction": 0.25,
    "loss.unet_crop": 128,
    "optimizer.final_learning_rate": 1e-5,
}


@pytest.fixture
def stored_config() -> dict:
    """The configuration in a checkpoint of an earlier configs/compact.py, all under its former names."""
    return json.loads(Path(__file__).with_name("old_config.json").read_text())


def value(config, name: str):
    section, _, key = name.partition(".")
    return config[section][key]


def test_each_former_name_maps_to_an_existing_setting(stored_config):
    config = default_config()
    assert RENAMED.keys() == set(OLD_NAMES.values())
    for old, new in OLD_NAMES.items():
        assert value(config, new) is not None and value(stored_config, old) is not None
        with pytest.raises(KeyError):
            value(config, old)


def test_a_run_resumes_with_its_old_configuration(stored_config):
    """Renamed settings keep their stored values under the present names; all others are as stored."""
    config = default_config()
    renamed = {tuple(old.split(".")) for old in OLD_NAMES}
    for section, settings in stored_config.items():
        if isinstance(settings, dict):
            config[section].update({key: v for key, v in settings.items() if (section, key) not in renamed})
        else:
            config[section] = settings
    config.update_from_flattened_dict(RENAMED)
    check_same_run(stored_config, config, "runs/compact")
    read = read_stored_config(stored_config)
    check_config(read)
    assert read.to_dict() == config.to_dict()
    assert {name: value(read, name) for name in RENAMED} == RENAMED
    config.loss.unet_crop = 64
    with pytest.raises(ConfigError, match="was started with loss.unet_crop=128, not 64"):
        check_same_run(stored_config, config, "runs/compact")


def test_old_metrics_and_data_states_are_read(stored_config, tmp_path):
    config = tiny_config(**{"model.width": 4})
    state = new_state(config, initial_weights(model_config(config), 0))
    data = {"next_step": 0, "pictures": {"records": 3, "names": "0" * 16}, "broken": [2]}
    data["counters"] = {"read": 8, "broken": 1, "small": 0, "upscaled": 0}
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step, objective in enumerate([2.0, 1.0, 3.0]):
            metrics = {"held_out_objective": objective, "held_out_bpp": 0.5}
            state = state._replace(step=state.step * 0 + step)
            checkpoints.save(state, ml_collections.ConfigDict(stored_config), data, metrics)
            checkpoints.wait()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 2] and checkpoints.best_step() == 1
        assert checkpoints.metrics(1) == {"validation_objective": 1.0, "validation_bpp": 0.5}
        assert checkpoints.restore_json(2, "data") == {
            "next_step": 0,
            "images": {"records": 3, "names": "0" * 16},
            "corrupt": [2],
            "counters": {"read": 8, "corrupt": 1, "small": 0, "upscaled": 0},
        }
        assert read_stored_config(checkpoints.restore_json(2, "config")).loss.max_noise_fraction == 0.5


def test_old_lines_of_the_log_are_read(tmp_path):
    line = {"step": 5, "held_out_psnr_db_1": 20.0, "pictures_read": 8, "pictures_broken": 1, "loss": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    renamed = {"step": 5, "validation_psnr_db_1": 20.0, "images_read": 8, "images_corrupt": 1, "loss": 1.0}
    assert RunLog(tmp_path).read() == [renamed]


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_a_former_name_is_refused_on_the_command_line(old, new, tmp_path, capsys):
    with pytest.raises(ConfigError, match=f"{old} is now called {new}"):
        check_overrides(default_config(), iter([old]))
    if old == "data.held_out":
        words = [f"--config={ROOT / 'configs' / 'demo.py'}", f"--workdir={tmp_path / 'run'}", f"--config.{old}=x.png"]
        assert main(["cdc_jax.main", *words]) == 2
        assert capsys.readouterr().err == f"error: The setting {old} is now called {new}.\n"


@pytest.mark.parametrize("assignment", ["config.loss.window = 64", "with config.unlocked(): config.loss.window = 64"])
def test_a_former_name_is_refused_in_a_file(assignment, tmp_path, capsys):
    file = tmp_path / "config.py"
    file.write_text(
        "from cdc_jax.training.config import default_config\n\n\n"
        f"def get_config():\n    config = default_config()\n    {assignment}\n    return config\n"
    )
    assert main(["cdc_jax.main", f"--config={file}", f"--workdir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err == "error: The setting loss.window is now called loss.unet_crop.\n"


def test_a_former_name_is_refused_where_a_run_is_checked():
    config = default_config()
    with config.unlocked():
        config.optimizer.final_rate = 1e-5
    with pytest.raises(ConfigError, match="optimizer.final_rate is now called optimizer.final_learning_rate"):
        check_config(config)
