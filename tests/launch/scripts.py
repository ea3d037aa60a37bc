"""The launch scripts, and stand-ins for the programs that they call."""

import stat
import subprocess
import time

from tests.helpers.processes import ROOT

LAUNCH = ROOT / "launch"
LOCAL, TPU_VM, SLURM = LAUNCH / "local.sh", LAUNCH / "tpu_vm.sh", LAUNCH / "slurm.sbatch"


def launch(script, *arguments, **environment):
    command = ["bash", str(script), *arguments]
    environment = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def executable(folder, name, body):
    """A shell script that stands in for a program: it records each call, then runs `body`."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> "{folder}/calls"\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def calls(folder):
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition, timeout_seconds=20):
    end = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
