"""Which settings are valid, and which may change when a run resumes."""

from __future__ import annotations

import runpy
from pathlib import Path

import ml_collections
import pytest

from cdc_jax.errors import ConfigError
from cdc_jax.training.config import default_config
from cdc_jax.training.config_checks import check_config, check_overrides, check_same_run
from tests.helpers.training import tiny_config


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
def test_invalid_settings(changes, word):
    config = tiny_config(**changes)
    with pytest.raises(ConfigError, match=word):
        check_config(config)


def test_configuration_is_locked():
    with pytest.raises((AttributeError, KeyError)):
        default_config().loss.beat = 1
    check_overrides(default_config(), iter(["loss.beta"]))
    with pytest.raises(ConfigError, match="loss.beta"):
        check_overrides(default_config(), iter(["loss.bet"]))


def test_a_run_resumes_with_the_settings_that_make_it_that_run():
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


def test_config_files_load_and_are_valid(random_bundle):
    files = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
    assert files
    for path in files:
        argument = [f"teacher={random_bundle},steps=1"] if path.name == "distill.py" else []
        config = runpy.run_path(str(path))["get_config"](*argument)
        assert "Command:" in runpy.run_path(str(path))["__doc__"]
        assert isinstance(config, ml_collections.ConfigDict)
        check_config(config)
