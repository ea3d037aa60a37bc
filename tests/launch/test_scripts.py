"""The launch scripts are valid, and so are the documented commands."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest

from cdc_jax.training.config_checks import check_overrides
from tests.helpers.processes import ROOT
from tests.launch.scripts import LAUNCH, LOCAL, SLURM, TPU_VM, launch


def test_the_scripts_pass_shellcheck():
    beside_python = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    shellcheck = shutil.which("shellcheck", path=beside_python)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install '.[test]'")
    scripts = [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")]
    checked = subprocess.run([shellcheck, *map(str, scripts)], capture_output=True, text=True)
    assert len(scripts) == 4 and checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", [LOCAL, TPU_VM, SLURM], ids=lambda path: path.name)
def test_usage(script):
    finished = launch(script, *(["train"] if script == TPU_VM else []), "configs/demo.py")
    assert finished.returncode == 2 and "CONFIG WORKDIR" in finished.stderr and not finished.stdout


@pytest.mark.parametrize("script", [LOCAL, TPU_VM])
def test_the_scripts_can_be_called_by_their_names(script):
    assert os.access(script, os.X_OK)


def documented_commands():
    """The commands in documentation, scripts and configurations that use one of our configurations."""
    commands = []
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *LAUNCH.iterdir(), *ROOT.glob("configs/*.py")]:
        text = re.sub(r" \\\n#? *", " ", path.read_text(encoding="utf-8"))
        for line in text.splitlines():
            quoted = re.findall(r"`([^`]+)`", line) or [re.sub(r"^(#|Command:)? *", "", line)]
            commands += [one for one in quoted if re.search(r"(\.main|\.sh|\.sbatch) .*configs/[a-z]", one)]
    return sorted(set(commands))


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_can_work(command, random_bundle, tmp_path):
    """Their settings exist, the data are named, and the batch can be split over the intended devices."""
    path, argument = re.search(r"(configs/\w+\.py)(?::(\S+))?", command).groups()
    if argument and "teacher=" in argument:
        teacher = shutil.copytree(random_bundle, tmp_path / "teacher")
        settings = teacher / "config.json"
        settings.write_text(re.sub(r'"decode_steps": \d+', '"decode_steps": 65', settings.read_text()))
        argument = re.sub(r"teacher=[^,]+", f"teacher={teacher}", argument)
    config = runpy.run_path(str(ROOT / path))["get_config"](*filter(None, [argument]))
    given = dict(word.lstrip("-").split("=", 1) for word in shlex.split(command, comments=True) if "=" in word)
    settings = {name.removeprefix("config."): value for name, value in given.items() if name.startswith("config.")}
    check_overrides(config, settings)
    if given.get("mode") == "compile":
        return
    assert settings.get("data.path", config.data.path) or config.data.source == "scikit-image"
    devices = int(given.get("PROCESSES", 1)) * int(given.get("DEVICES_PER_PROCESS", 1))
    if "slurm.sbatch" in command or "tpu_vm.sh" in command:
        devices = 8 * int(given.get("nodes", 1))
    assert int(settings.get("data.batch_size", config.data.batch_size)) % devices == 0


def test_no_documented_launch_continues_the_demo():
    """After `make demo`, runs/demo holds a run with other settings, which the trainer refuses to continue."""
    commands = [command for command in documented_commands() if "local.sh" in command]
    assert len(commands) >= 2 and not any("runs/demo" in command for command in commands)
