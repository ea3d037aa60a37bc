"""Fixtures of the comparisons: our arrays, and a table of all measurements at the end of the run."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest

# Set before TensorFlow is imported: it logs much when it starts, and no GPU is needed here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_measurements: list[tuple[str, str, str, str]] = []


def pytest_addoption(parser):
    parser.addoption("--ours", required=True, help="the .npz that our_side.py has written")


@functools.cache
def _load(path: str) -> dict[str, dict[str, np.ndarray]]:
    if not Path(path).is_file():
        raise pytest.UsageError(f"{path} does not exist: run `make conformance`, which writes it first.")
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as file:
        for key in file.files:
            case, _, name = key.rpartition("/")
            cases.setdefault(case, {})[name] = file[key]
    return cases


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", [name for name in _load(metafunc.config.option.ours) if name != "gaussian"])


@pytest.fixture
def arrays(case: str, pytestconfig) -> dict[str, np.ndarray]:
    """The arrays of each case in turn."""
    return _load(pytestconfig.option.ours)[case]


@pytest.fixture(scope="session")
def gaussian(pytestconfig) -> dict[str, np.ndarray]:
    """The arrays of the conditional Gaussian."""
    return _load(pytestconfig.option.ours)["gaussian"]


@pytest.fixture
def report(request):
    """report(what, measured, limit) adds a line to the table at the end of the run."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    return lambda what, measured, limit: _measurements.append((params.get("case", "gaussian"), what, measured, limit))


def pytest_terminal_summary(terminalreporter):
    if not _measurements:
        return
    terminalreporter.section("ours, compared with tensorflow-compression")
    rows = [("case", "what", "measured", "limit"), *sorted(_measurements, key=lambda row: row[0])]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(widths[column]) for column, cell in enumerate(row)]
        terminalreporter.write_line("  ".join(cells).rstrip())
