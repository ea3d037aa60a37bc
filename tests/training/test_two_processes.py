"""Training with two processes, started as `launch/local.sh` starts them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers.processes import FAST_COMPILE_FLAGS, ROOT, user_environment
from tests.helpers.training import main_command


def run_two(workdir: Path, **settings) -> subprocess.CompletedProcess:
    command = main_command(workdir, **settings)
    config, flags = command[3].removeprefix("--config="), command[5:]
    environment = user_environment(PROCESSES="2", DEVICES_PER_PROCESS="1", ATTEMPTS="1", PYTHON=command[0])
    environment |= {"XLA_FLAGS": FAST_COMPILE_FLAGS, "TMPDIR": str(workdir.parent)}
    return subprocess.run(
        [ROOT / "launch" / "local.sh", config, str(workdir), *flags],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_two_processes_write_the_outputs_of_one(tmp_path):
    """All outputs are written; the same command again finds nothing left to do."""
    settings = {"model.width": 4, "data.crop": 64, "data.batch_size": 2, "train.steps": 2, "train.checkpoint_every": 1}
    finished = run_two(tmp_path / "run", **settings)
    assert finished.returncode == 0, finished.stderr
    for name in ("bundle/model_card.md", "example.cdc", "example.png", "side_by_side.png", "checkpoints/2"):
        assert (tmp_path / "run" / name).exists(), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 2
