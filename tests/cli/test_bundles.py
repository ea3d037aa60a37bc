"""`cdc import-torch` and `cdc export`."""

import sys
import types
from pathlib import Path

import pytest

from cdc_jax.codec.bundle_folder import check_new_bundle
from cdc_jax.errors import CheckpointError
from cdc_jax.io.files import new_folder
from tests.cli.fake_codec import fails, tree

FILES = ["coding.npz", "config.json"]


@pytest.fixture
def makers(monkeypatch):
    """Replaces the modules that create bundles; returns the list of their calls."""
    calls = []

    def make(name):
        def maker(source, folder, *, overwrite, **options):
            calls.append((name, source, options))
            if source == "bad":
                raise CheckpointError(f"no weights for {folder}")
            check_new_bundle(folder, overwrite=overwrite)
            with new_folder(folder) as path:
                for file in FILES:
                    (path / file).write_text(source)

        return maker

    importer, exporter = types.ModuleType("import_torch"), types.ModuleType("export")
    importer.import_torch, exporter.export_workdir = make("import"), make("export")
    monkeypatch.setitem(sys.modules, "cdc_jax.codec.import_torch", importer)
    monkeypatch.setitem(sys.modules, "cdc_jax.training.export", exporter)
    return calls


def put_bundle(folder: str) -> None:
    Path(folder).mkdir()
    for file in FILES:
        (Path(folder) / file).write_text("precious")


def test_bundles_are_created(cdc, makers):
    assert cdc("import-torch", "x.pt", "out")[::2] == (0, ["cdc: x.pt -> out"])
    assert cdc("export", "run", "out2", "--step=5", "--quiet") == (0, "", [])
    usual = {"step": None, "best": False, "half": False, "license": "other"}
    assert makers == [("import", "x.pt", {}), ("export", "run", {**usual, "step": 5})]
    assert tree() == [f"{folder}/{file}" for folder in ("out", "out2") for file in FILES]
    Path("empty").mkdir()
    assert cdc("export", "run", "empty", "--quiet")[0] == 0
    assert makers[-1] == ("export", "run", usual)
    assert cdc("export", "run", "best", "--best", "--float16", "--license", "mit", "--quiet")[0] == 0
    assert makers[-1] == ("export", "run", {**usual, "best": True, "half": True, "license": "mit"})
    assert cdc("export", "run", "both", "--best", "--step=5")[0] == 2
    assert tree("empty") == FILES


def test_an_existing_bundle_is_kept_unless_forced(cdc, makers):
    put_bundle("out")
    fails(cdc("export", "run", "out"), 1, "out", "--force")
    assert makers == []
    fails(cdc("export", "bad", "out", "--force"), 1, "no weights for out")
    assert Path("out/coding.npz").read_text() == "precious"
    assert cdc("export", "run", "out", "--force", "--quiet")[0] == 0
    assert Path("out/coding.npz").read_text() == "run" and tree() == ["out/coding.npz", "out/config.json"]


def test_force_replaces_nothing_but_bundles(cdc, makers):
    """In particular not a run, which may hold files of the same names."""
    put_bundle("run")
    Path("run/checkpoints").mkdir()
    Path("home").mkdir()
    Path("home/letter").write_text("precious")
    for output in ("home", "home/letter", "run"):
        fails(cdc("import-torch", "x.pt", output, "--force"), 1, output, "not a bundle")
    assert makers == []
    fails(cdc("import-torch", "x.pt", "home/letter/out"), 1, "home/letter")
    assert cdc("import-torch", "bad", "new")[::2] == (1, ["cdc: no weights for new"])
    assert tree() == ["home/letter", "run/coding.npz", "run/config.json"]


@pytest.mark.parametrize("words", [["import-torch"], ["import-torch", "a"], ["export", "a", "b", "c"]])
def test_bundle_makers_take_two_names(cdc, makers, words):
    fails(cdc(*words), 2, "--help")
    assert makers == []


@pytest.mark.parametrize("words", [[], ["--best"], ["--step=3"]])
def test_a_run_without_checkpoints_is_one_line(cdc, words):
    """With the real exporter."""
    Path("run/checkpoints").mkdir(parents=True)
    fails(cdc("export", "run", "out", *words), 1, "run has no checkpoint yet", "before the first one")
    assert not Path("out").exists()
    fails(cdc("export", "missing", "out", *words), 1, "missing is not a training run's folder")
