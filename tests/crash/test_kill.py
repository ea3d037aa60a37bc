"""Commands killed at random moments: whatever is there afterwards is whole, and what was there before is not lost.

CDC_KILLS is the number of kills of each of the four commands: 50 for a release.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.codec.bundle import load_bundle
from cdc_jax.io.images import write_image
from cdc_jax.models.params import shapes
from cdc_jax.training.checkpoints import Checkpoints
from cdc_jax.training.config import model_config
from tests.helpers.kills import Killer
from tests.helpers.torch_files import write_fake_checkpoint
from tests.helpers.training import main_command, tiny_config, tiny_settings

KILLS = int(os.environ.get("CDC_KILLS", "10"))
IMAGES = 24
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900 + 120 * KILLS),
    pytest.mark.skipif(os.name != "posix", reason="kills process groups"),
]


@pytest.fixture
def killer(tmp_path):
    with Killer(tmp_path) as killer:
        yield killer


def report(capsys, what: str, killer: Killer, result: str) -> None:
    with capsys.disabled():
        print(f"\n{what}: {killer.killed} killed, {killer.finished} had finished; {result}")


def files_in(folder: Path) -> dict[str, bytes]:
    """What is not hidden, by name."""
    paths = folder.iterdir() if folder.exists() else []
    return {path.name: path.read_bytes() for path in paths if not path.name.startswith(".")}


def test_compressing_a_folder(random_bundle, tmp_path, killer, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(IMAGES):
        write_image(tmp_path / "images" / f"{i}.png", rng.integers(0, 256, (64, 64, 3), np.uint8))
    words = "cdc", "compress", "images", "-o", "files", "--model", str(random_bundle)
    killer.seconds_of(*words)
    expected = files_in(tmp_path / "files")
    assert len(expected) == IMAGES

    def begun() -> bool:
        return (tmp_path / "files").exists() and any((tmp_path / "files").iterdir())

    phases = timed_phases(killer, words, begun, lambda: shutil.rmtree(tmp_path / "files"))
    left = []
    while killer.killed < KILLS:
        number = killer.killed + killer.finished
        shutil.rmtree(tmp_path / "files", ignore_errors=True)
        seconds, start = phases[number % 2]
        killer.kill_within(seconds, *words, begun=start)
        found = files_in(tmp_path / "files")
        assert found.items() <= expected.items()
        left.append(len(found))
    killer.seconds_of(*words, "--skip-existing")
    assert files_in(tmp_path / "files") == expected
    report(capsys, "compress of a folder", killer, f"{sorted(left)} of {IMAGES} files left, all whole")


def timed_phases(killer: Killer, words: tuple[str, ...], begun: Callable[[], object], undo: Callable[[], object]):
    """The whole command and its writing, which may be short: how long each takes, and what shows that it has begun."""
    phases = []
    for start in (None, begun):  # all programs are compiled by now
        undo()
        phases.append((killer.seconds_of(*words, begun=start), start))
    return phases


def make_again_and_again(killer: Killer, words: tuple[str, ...], old: Path) -> str:
    """Kills a command that makes the bundle `made`, in the place of nothing or, with --force, of another bundle."""
    made = killer.folder / "made"
    killer.seconds_of(*words)
    hashes = {load_bundle(path).weights_sha256: name for path, name in ((old, "old"), (made, "new"))}
    assert len(hashes) == 2

    def begun() -> list[Path]:
        return list(killer.folder.glob(".made-*"))

    phases = timed_phases(killer, words, begun, lambda: shutil.rmtree(made))
    outcomes = Counter()
    while killer.killed < KILLS:
        number = killer.killed + killer.finished
        for path in (made, *killer.folder.glob(".made-*")):
            shutil.rmtree(path, ignore_errors=True)
        if number % 2:
            shutil.copytree(old, made)
        seconds, start = phases[number // 2 % 2]
        killer.kill_within(seconds, *words, *(["--force"] if number % 2 else []), begun=start)
        aside = list(killer.folder.glob(".made-*.old"))  # killed between two renames, or before the old one was deleted
        if made.exists():
            outcomes[hashes[load_bundle(made).weights_sha256]] += 1
        elif number % 2:
            assert hashes[load_bundle(aside[0]).weights_sha256] == "old"
            outcomes["aside"] += 1
        else:
            outcomes["none"] += 1
    killer.seconds_of(*words, "--force")
    assert hashes[load_bundle(made).weights_sha256] == "new"
    return f"{dict(outcomes)}, all whole"


def test_importing_a_checkpoint(random_bundle, tmp_path, killer, capsys):
    write_fake_checkpoint(tmp_path / "fake.pt")
    words = "cdc", "import-torch", "fake.pt", "made"
    report(capsys, "import", killer, make_again_and_again(killer, words, random_bundle))


def test_exporting_a_run(random_bundle, trained_workdir, tmp_path, killer, capsys):
    shutil.copytree(trained_workdir / "checkpoints", tmp_path / "run" / "checkpoints")
    words = "cdc", "export", "run", "made"
    result = make_again_and_again(killer, words, random_bundle)
    with Checkpoints(tmp_path / "run") as kept, Checkpoints(trained_workdir) as original:
        assert kept.steps() == original.steps()
    report(capsys, "export", killer, result)


def test_training(tmp_path, killer, capsys):
    """One run that is killed and resumed again and again: each checkpoint that counts as one is whole."""
    smaller = {"model.width": 4, "data.crop": 64}
    settings = tiny_settings(
        **smaller, **{"train.steps": 100_000, "train.checkpoint_every": 3, "train.eval_every": 100_000}
    )
    config, latest, whole = tiny_config(**smaller), 0, 0
    expected = shapes(model_config(config))
    words = main_command(tmp_path / "run", **settings)[3:]
    while killer.killed < KILLS:
        process = killer.start("train", *words)
        goal = latest + int(killer.random.integers(1, 10))
        deadline = time.monotonic() + 900
        while newest_step(tmp_path / "run") < goal:
            assert time.monotonic() < deadline, (tmp_path / "errors").read_text()
            time.sleep(0.01)
        time.sleep(killer.random.uniform(0, 1))
        killer.kill(process)
        with Checkpoints(tmp_path / "run", config.train.keep_checkpoints) as checkpoints:
            steps = checkpoints.steps()
            assert steps and steps[-1] >= latest, "a checkpoint is lost"
            latest = steps[-1]
            for step in steps:
                weights = checkpoints.restore_params(expected, step, "weights")
                assert all(np.isfinite(value).all() for value in weights.values())
                assert checkpoints.restore_json(step, "config") and checkpoints.restore_json(step, "data")
                whole += 1
    report(capsys, "training", killer, f"{whole} checkpoints restored, the last of step {latest}")


def newest_step(workdir: Path) -> int:
    """Of the checkpoints' folders with a final name."""
    names = [path.name for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    return max(map(int, names), default=0)
