"""The profiler's trace of a few steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from cdc_jax.step_trace import StepTrace


def run(trace, steps):
    with trace:
        for step in range(steps):
            trace.before(step)
            jax.block_until_ready(jnp.ones(3) + step)


@pytest.mark.parametrize("steps", [2, 8], ids=["a run that ends while it is traced", "a run that goes on"])
def test_a_trace_is_written_and_ended(steps, tmp_path):
    run(StepTrace(tmp_path / "profile", 1), steps)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    run(StepTrace(tmp_path / "again", 1), steps)  # a trace that still ran would refuse another


@pytest.mark.parametrize("first", [0, 5], ids=["none is asked for", "later than the run's end"])
def test_nothing_is_traced(first, tmp_path):
    run(StepTrace(tmp_path / "profile", first), 3)
    assert not (tmp_path / "profile").exists()
