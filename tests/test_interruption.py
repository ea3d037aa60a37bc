"""Runs that are killed, stopped, or cannot write: what a restart makes of them."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import time

import numpy as np
import pytest

from cdc_jax.checkpoint import Checkpoints
from cdc_jax.config import model_config
from cdc_jax.models.params import shapes
from tests.processes import user_environment
from tests.training import main_command, run_main, tiny_config

STEPS = 40
SETTINGS = {
    "model.width": 4,
    "data.crop": 64,
    "data.held_out": "",
    "train.steps": STEPS,
    "train.log_every": 1,
    "train.checkpoint_every": 5,
}


def final_weights(workdir) -> dict[str, np.ndarray]:
    """Raw and averaged, of the last step."""
    expected, found = shapes(model_config(tiny_config(**SETTINGS))), {}
    with Checkpoints(workdir) as checkpoints:
        for item in ("weights", "ema"):
            stored = checkpoints.restore_params(expected, STEPS, item)
            found |= {f"{item} {name}": np.asarray(value) for name, value in stored.items()}
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, np.ndarray]:
    """The weights that a run ends with when nothing happens to it."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    finished = run_main(workdir, **SETTINGS)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return final_weights(workdir)


def run_until(workdir, step: int, number: signal.Signals) -> subprocess.CompletedProcess:
    """Starts the run, and sends it a signal once that step is in its log."""
    log, pipe = workdir / "metrics.jsonl", subprocess.PIPE
    command = main_command(workdir, **SETTINGS)
    process = subprocess.Popen(command, env=user_environment(), stdout=pipe, stderr=pipe, text=True)
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= step):
        time.sleep(0.002)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def assert_finishes_as(expected: dict[str, np.ndarray], workdir) -> None:
    finished = run_main(workdir, **SETTINGS)
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = final_weights(workdir)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))


def test_a_killed_run_ends_as_if_nothing_had_happened(uninterrupted, tmp_path):
    """SIGKILL at a random step, which may be while a checkpoint is written."""
    killed = run_until(tmp_path / "run", random.Random(time.time_ns()).randint(6, STEPS - 6), signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert_finishes_as(uninterrupted, tmp_path / "run")


def test_sigterm_saves_the_step_it_comes_in(uninterrupted, tmp_path):
    stopped = run_until(tmp_path / "run", 12, signal.SIGTERM)
    assert stopped.returncode == 143, stopped.stderr[-3000:]
    assert "goes on from there" in stopped.stderr.splitlines()[-1] and "Traceback" not in stopped.stderr
    with Checkpoints(tmp_path / "run") as checkpoints:
        step = checkpoints.latest_step()
    assert f"after step {step};" in stopped.stderr
    assert step % SETTINGS["train.checkpoint_every"] or 12 <= step < STEPS
    assert_finishes_as(uninterrupted, tmp_path / "run")


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path):
    """As `ulimit -f` simulates it: no file may grow beyond a size that the weights exceed."""
    settings = SETTINGS | {"train.steps": 10}
    assert run_main(tmp_path / "run", **SETTINGS | {"train.steps": 5}).returncode == 0
    command = main_command(tmp_path / "run", **settings)
    limit = 100_000

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # A compilation cache would meet the limit first.
    environment = user_environment() | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=limit_files)
    assert finished.returncode == 1, finished.stderr[-3000:]
    assert "checkpoint" in finished.stderr.splitlines()[-1] and "Traceback" not in finished.stderr
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.steps() == [5]


def test_a_file_where_the_checkpoints_should_be(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("")
    finished = run_main(tmp_path / "run", **SETTINGS)
    assert finished.returncode == 1
    assert "checkpoints" in finished.stderr.splitlines()[-1] and "Traceback" not in finished.stderr
