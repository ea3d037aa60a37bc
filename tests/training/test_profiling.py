"""The profiler's trace of a few steps, in separate processes: a process can have one profiler only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.processes import fast_environment

PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from cdc_jax.training.profiling import StepTrace
first, steps = map(int, sys.argv[1:3])
for name in ("profile", "again"):  # a trace that still ran would refuse another
    with StepTrace(Path(sys.argv[3], name), first) as trace:
        for step in range(steps):
            trace.before(step)
            jax.block_until_ready(jnp.ones(3) + step)
"""


def run(folder, first: int, steps: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(first), str(steps), str(folder)]
    finished = subprocess.run(command, env=fast_environment(), capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("steps", [2, 8], ids=["a run that ends while it is traced", "a run that continues"])
def test_a_trace_is_written_and_ended(steps, tmp_path):
    run(tmp_path, 1, steps)
    for name in ("profile", "again"):
        assert list((tmp_path / name).rglob("*.xplane.pb"))


@pytest.mark.parametrize("first", [0, 5], ids=["none is asked for", "later than the run's end"])
def test_nothing_is_traced(first, tmp_path):
    run(tmp_path, first, 3)
    assert not list(tmp_path.iterdir())
