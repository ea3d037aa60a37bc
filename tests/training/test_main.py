"""The trainer's command line: help, the configuration file, and unknown settings."""

from __future__ import annotations

import pytest

from cdc_jax import main as command_line
from cdc_jax.errors import ConfigError
from tests.helpers.training import CONFIG

COUNTING = """
from pathlib import Path
from cdc_jax.training.config import default_config

def get_config(argument=""):
    log = Path(__file__).with_name("executed")
    log.write_text(log.read_text() + argument + "\\n" if log.exists() else argument + "\\n")
    return default_config()
"""


@pytest.fixture
def received(monkeypatch) -> list:
    """The configurations that runs would have trained with."""
    configs = []
    monkeypatch.setattr(command_line, "run", lambda argv, config: configs.append(config))
    return configs


def main(*words) -> int:
    return command_line.main(["cdc_jax.main", *map(str, words)])


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpshort"])
def test_help_lists_flags_and_where_the_settings_are(flag, capsys, received):
    assert main(flag) == 0 and not received
    output, errors = capsys.readouterr()
    assert not errors
    for words in ("--workdir", "cdc_jax/training/config.py", "docs/training.md", "--mode", "With --mode=compile:"):
        assert words in output
    after = output.partition("With --mode=compile:")[2]
    assert all(f"--{option}: " in after for option in ("topology", "batch-per-chip", "programs", "cache"))


@pytest.mark.parametrize("joined", [True, False], ids=["--config=FILE", "--config FILE"])
def test_a_file_is_executed_once(joined, tmp_path, received):
    file = tmp_path / "config.py"
    file.write_text(COUNTING)
    words = [f"--config={file}:two words"] if joined else ["--config", f"{file}:two words"]
    assert main(*words, "--config.loss.beta=0.25", "--config.train.steps", "7") == 0
    assert (tmp_path / "executed").read_text() == "two words\n"
    (config,) = received
    assert config.loss.beta == 0.25 and config.train.steps == 7


@pytest.mark.parametrize(
    "words",
    [
        (f"--config={CONFIG}", "--config.loss.beat=0.1"),
        ("--config", CONFIG, "--config.loss.beat=0.1"),
        ("--config", CONFIG, "--config.loss.beat", "0.1"),
        ("-config", CONFIG, "-config.loss.beat", "0.1"),
        (f"--config={CONFIG}", "--noconfig.loss.beat"),
    ],
    ids=["=", "space", "spaces", "one dash", "no"],
)
def test_an_unknown_setting_names_the_nearest_one(words, capsys, received):
    assert main(*words) == 2 and not received
    assert capsys.readouterr().err == "error: Unknown setting config.loss.beat; did you mean config.loss.beta?\n"


@pytest.mark.parametrize("words", [["--config=absent.py"], ["--config", "absent.py:warmup"]])
def test_a_missing_file_is_one_line(words, capsys, received):
    assert main(*words) == 2 and not received
    assert capsys.readouterr().err == "error: There is no configuration file absent.py.\n"


def test_a_run_needs_a_configuration_and_a_folder():
    with pytest.raises(ConfigError, match="--config=FILE and --workdir=DIR"):
        command_line.run(["cdc_jax.main"], None)
    with pytest.raises(ConfigError, match="Unexpected argument 'stray'"):
        command_line.run(["cdc_jax.main", "stray"], None)
