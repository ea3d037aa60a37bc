"""What the comparisons share: our side's arrays, and a table of all figures at the end of the run."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: its start is noisy
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

OURS = Path(os.environ.get("CONFORMANCE_FILE", "build/conformance.npz"))

_figures: list[tuple[str, str, str, str]] = []


def _load() -> dict[str, dict[str, np.ndarray]]:
    cases: dict[str, dict[str, np.ndarray]] = {}
    if OURS.is_file():
        with np.load(OURS) as file:
            for key in file.files:
                case, _, name = key.rpartition("/")
                cases.setdefault(case, {})[name] = file[key]
    return cases


def pytest_generate_tests(metafunc):
    """`arrays` stands for each case in turn: the tests' names tell which."""
    if "arrays" in metafunc.fixturenames:
        cases = {name: arrays for name, arrays in metafunc.config.stash[_CASES].items() if name != "gaussian"}
        metafunc.parametrize("arrays", cases.values(), ids=cases.keys())


_CASES = pytest.StashKey[dict]()


def pytest_configure(config):
    config.stash[_CASES] = _load()


@pytest.fixture(scope="session")
def gaussian(pytestconfig) -> dict[str, np.ndarray]:
    return pytestconfig.stash[_CASES]["gaussian"]


@pytest.fixture
def report(request):
    """report(what, ours, limit): adds a line to the table that ends the run."""
    case = request.node.callspec.id if hasattr(request.node, "callspec") else "gaussian"
    return lambda what, figure, limit: _figures.append((case, what, figure, limit))


def pytest_terminal_summary(terminalreporter):
    if not _figures:
        return
    terminalreporter.section("compared with tensorflow-compression 2.14.1")
    rows = [("case", "what", "figure", "limit"), *_figures]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
