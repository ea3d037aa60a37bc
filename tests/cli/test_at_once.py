"""Two processes at once: one output, one bundle, one folder of compiled programs."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.io import cdc_file
from cdc_jax.io.images import write_image
from tests.cli.fake_codec import tree
from tests.cli.test_processes import FAKE
from tests.helpers.processes import user_environment

# Each says that it is ready, and goes on when both are: after the check that the output is free.
MEET = """
import pathlib, sys, time
class Meeting(fake_codec.StoringCodec):
    def compress(self, image, **_):
        pathlib.Path("ready" + sys.argv[-1][-1]).touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        return super().compress(image)
fake_codec.StoringCodec = Meeting
"""
EXPORT = """
import pathlib, sys, time
import numpy as np
from cdc_jax.codec import bundle
from cdc_jax.errors import CdcError
from tests.helpers.compact import COMPACT, compact_weights
weights = compact_weights(seed=int(sys.argv[1]))
pathlib.Path("ready" + sys.argv[1]).touch()
while not pathlib.Path("go").exists():
    time.sleep(0.01)
try:
    bundle.save_bundle("made", COMPACT, weights, provenance=sys.argv[1])
except CdcError as error:
    sys.exit(str(error))
"""


def run_both(folder: Path, commands: list[list[str]]) -> list[tuple[int, str]]:
    """Exit codes and standard errors of processes that are let go when each has touched its file `ready…`."""
    options = {"cwd": folder, "env": user_environment(), "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", *command], **options) for command in commands]
    deadline = time.monotonic() + 120
    while len(list(folder.glob("ready*"))) < len(commands) and time.monotonic() < deadline:
        time.sleep(0.02)
    for path in folder.glob("ready*"):
        path.unlink()
    (folder / "go").touch()
    return [(process.wait(120), process.communicate()[1]) for process in processes]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_one_output(tmp_path, force):
    for i in (1, 2):
        write_image(tmp_path / f"{i}.png", np.full((8, 8 * i, 3), i, np.uint8))
    code = FAKE.format(setup=MEET)
    words = [["compress", f"{i}.png", "-o", "out.cdc", *force, f"--model={i}"] for i in (1, 2)]
    results = run_both(tmp_path, [[code, *each] for each in words])
    written = cdc_file.unpack((tmp_path / "out.cdc").read_bytes())
    assert tree(tmp_path) == ["1.png", "2.png", "go", "out.cdc"]
    codes = [code for code, _ in results]
    if force:
        assert codes == [0, 0]
    else:
        assert sorted(codes) == [0, 1]
        [(_, winner), (_, loser)] = sorted(results)
        assert written.width == 8 * (1 + codes.index(0))
        assert loser == "cdc: out.cdc: The file exists and was kept; --force replaces it.\n" and "-> out.cdc" in winner


def test_one_bundle(tmp_path):
    results = run_both(tmp_path, [[EXPORT, str(i)] for i in (1, 2)])
    [(won, _), (lost, message)] = sorted(results)
    assert (won, lost) == (0, 1) and "made exists already and was kept" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["go", "made"]
    from cdc_jax.codec.bundle import load_bundle

    load_bundle(tmp_path / "made")
    winner = 1 + [code for code, _ in results].index(0)
    assert (tmp_path / "made" / "model_card.md").read_text().splitlines()[2] == str(winner)
