"""The launch scripts: what they would run, and when they try again."""

import shlex
import stat
import subprocess

from tests.processes import ROOT

SCRIPT = ROOT / "launch" / "local.sh"


def launch(*arguments, **environment):
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **environment})


def fake_python(folder, status):
    """Stands in for the interpreter: notes each call, exits as told."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/calls"\nexit {status}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_dry_run_prints_the_command_and_runs_nothing(tmp_path):
    python = fake_python(tmp_path, 0)
    finished = launch("--dry-run", "configs/demo.py", "runs/my demo", "--config.seed=1", PYTHON=python)
    expected = [python, "-m", "cdc_jax.main", "--config=configs/demo.py", "--workdir=runs/my demo", "--config.seed=1"]
    assert shlex.split(finished.stdout) == expected
    assert not (tmp_path / "calls").exists()


def test_a_crash_is_tried_again_and_a_mistake_is_not(tmp_path):
    for status, calls in ((0, 1), (1, 3), (2, 1), (139, 3)):
        folder = tmp_path / str(status)
        folder.mkdir()
        finished = launch("configs/demo.py", "runs/demo", PYTHON=fake_python(folder, status))
        assert finished.returncode == status
        assert len((folder / "calls").read_text().splitlines()) == calls


def test_usage():
    finished = launch("configs/demo.py")
    assert finished.returncode == 2 and finished.stderr.startswith("usage:")
