"""Resuming runs that were stopped, were killed, or could not write."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cdc_jax.errors import CheckpointError
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import shapes
from cdc_jax.training.checkpoints import Checkpoints
from cdc_jax.training.config import model_config
from cdc_jax.training.step import new_state
from tests.helpers.processes import ROOT, fast_environment
from tests.helpers.training import main_command, run_main, tiny_config, tiny_settings

FIRST, LAST = 60, 120  # the checkpoints of the tiny run


def weights_at_the_end(workdir) -> dict[str, np.ndarray]:
    """The raw and the averaged weights of the last checkpoint."""
    expected, weights = shapes(model_config(tiny_config())), {}
    with Checkpoints(workdir) as checkpoints:
        for item in ("weights", "ema"):
            stored = checkpoints.restore_params(expected, LAST, item)
            weights |= {f"{item} {name}": np.asarray(value) for name, value in stored.items()}
    return weights


def lines_of(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]


def start_and_signal(workdir, number: signal.Signals, step: int, later_seconds: float) -> subprocess.CompletedProcess:
    """Starts the run, and sends it a signal some time after a step has been logged."""
    pipe = subprocess.PIPE
    command = main_command(workdir, **tiny_settings())
    process = subprocess.Popen(command, env=fast_environment(), stdout=pipe, stderr=pipe, text=True)
    while process.poll() is None and max(line["step"] for line in lines_of(workdir)) < step:
        time.sleep(0.01)
    time.sleep(later_seconds)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def test_a_stopped_and_then_killed_run_ends_as_if_nothing_had_happened(trained_workdir, tmp_path):
    """From the middle checkpoint: SIGTERM, resume, SIGKILL at some moment, resume. The final weights are bit-exact."""
    workdir = tmp_path / "run"
    shutil.copytree(trained_workdir, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(LAST))
    shutil.rmtree(workdir / "bundle")
    kept = [line for line in lines_of(workdir) if line["step"] <= FIRST]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))

    stopped = start_and_signal(workdir, signal.SIGTERM, FIRST + 10, 0)
    assert stopped.returncode == 143, stopped.stderr[-3000:]
    assert "resumes from there" in stopped.stderr.splitlines()[-1] and "Traceback" not in stopped.stderr
    with Checkpoints(workdir) as checkpoints:
        step = checkpoints.latest_step()
    assert FIRST + 10 <= step < LAST and f"after step {step};" in stopped.stderr

    moment = random.Random(time.time_ns()).random()
    killed = start_and_signal(workdir, signal.SIGKILL, FIRST + 30, moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]

    finished = run_main(workdir, **tiny_settings())
    assert finished.returncode == 0, finished.stderr[-3000:]
    weights = weights_at_the_end(workdir)
    for name, expected in weights_at_the_end(trained_workdir).items():
        assert np.array_equal(weights[name], expected), name
    for name in ("coding.npz", "config.json"):
        assert (workdir / "bundle" / name).read_bytes() == (trained_workdir / "bundle" / name).read_bytes(), name
    logged = {line["step"] for line in lines_of(trained_workdir)}
    assert logged <= {line["step"] for line in lines_of(workdir)}


def _state_and_config():
    config = tiny_config(**{"model.width": 4})
    return new_state(config, initial_weights(model_config(config), 0)), config


def save_on_a_full_disk(workdir: str) -> None:
    """Saves two checkpoints; before the second, the size of files is limited, as with `ulimit -f`."""
    state, config = _state_and_config()
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(state, config)
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            checkpoints.save(state._replace(step=state.step + 1), config)
            checkpoints.wait()
        except CheckpointError as error:
            print("refused:", error)
    sys.stdout.flush()


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path):
    script = f"from tests.training.test_preemption import *; save_on_a_full_disk({str(tmp_path)!r})"
    finished = subprocess.run(
        [sys.executable, "-c", script], env=fast_environment(), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "refused:" in finished.stdout, finished.stderr[-3000:]
    state, _ = _state_and_config()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [0]
        restored = checkpoints.restore(state, 0)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state, restored)), strict=True))


def test_a_file_where_the_checkpoints_should_be(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="checkpoints"):
        Checkpoints(tmp_path)


def test_the_latest_and_the_best_are_kept(tmp_path):
    from cdc_jax.training.checkpoints import OBJECTIVE, choose_step

    state, config = _state_and_config()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, objective in enumerate([3.0, 1.0, 2.0, 4.0, None]):
            metrics = None if objective is None else {OBJECTIVE: objective, "validation_bpp": 0.5}
            checkpoints.save(state._replace(step=state.step * 0 + step), config, {"next_step": step}, metrics)
            checkpoints.wait()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 3, 4] and checkpoints.best_step() == 1
        assert checkpoints.metrics(1)["validation_bpp"] == 0.5 and checkpoints.metrics(4) == {}
        assert checkpoints.restore_json(3, "data") == {"next_step": 3}
        assert choose_step(checkpoints, tmp_path, None) == 4
        assert choose_step(checkpoints, tmp_path, None, best=True) == 1
        with pytest.raises(CheckpointError, match="1, 3, 4"):
            choose_step(checkpoints, tmp_path, 2)
    with Checkpoints(tmp_path, keep=2) as checkpoints:  # a restarted run knows the best of the one before
        checkpoints.save(state._replace(step=state.step * 0 + 5), config, {}, {OBJECTIVE: 5.0})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 4, 5]
