"""Coverage-guided fuzzing of every reader of foreign input: a minute each, or CDC_FUZZ_SECONDS, such as an hour."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.fuzz.corpus import MAX_BYTES, choose, read
from tests.fuzz.targets import TARGETS, damaged
from tests.helpers.processes import ROOT, user_environment

SECONDS = int(os.environ.get("CDC_FUZZ_SECONDS", "60"))
FINDINGS = ("crash-", "timeout-", "oom-", "leak-")


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_damaged_seeds(name):
    """Without coverage, everywhere: seeds are accepted; what was kept and what is close to a seed is no finding."""
    target, kept = TARGETS[name], read(name)
    assert sum(map(len, kept)) <= MAX_BYTES and bool(kept) == (name != "coding_npz")
    for data in kept:
        target.run(data)
    assert all(map(target.run, target.seeds()))
    accepted = [target.run(data) for data in damaged(target.seeds(), 100)]
    assert not all(accepted)


def test_what_is_kept_reaches_new_lines(tmp_path):
    target = TARGETS["container"]
    inputs = [*target.seeds(), b"", b"\xc3", b"\xc3D", target.seeds()[0] + b"\0"]
    chosen = choose(inputs, target.run)
    assert b"" in chosen and target.seeds()[2] in chosen and len(chosen) < len(inputs)


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS + 300)
@pytest.mark.parametrize("name", TARGETS)
def test_a_minute_of_fuzzing(name, tmp_path, capsys):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install '.[fuzz]'")
    command = [sys.executable, "-m", "tests.fuzz.run", name, str(tmp_path), f"-max_total_time={SECONDS}"]
    done = subprocess.run(command, env=user_environment(), cwd=ROOT, capture_output=True, text=True)
    found = [path for path in tmp_path.iterdir() if path.name.startswith(FINDINGS)]
    message = "\n".join([*(f"{path.name}: {path.read_bytes()[:500]!r}" for path in found), done.stderr[-3000:]])
    assert done.returncode == 0 and not found, message
    [executed] = re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)
    covered = re.findall(r"#\d+\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)", done.stderr)[-1]
    assert int(executed) > 100
    edges, features, kept = covered
    with capsys.disabled():
        print(f"\n{name}: {executed} executions in {SECONDS} s, {edges} edges, {features} features, {kept} inputs kept")
