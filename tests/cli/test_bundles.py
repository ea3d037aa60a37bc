"""`cdc import-torch` and `cdc export`."""

import sys
import types
from pathlib import Path

import pytest

from cdc_jax.errors import CheckpointError
from tests.cli.fake_codec import fails, tree


@pytest.fixture
def makers(monkeypatch):
    """Stand-ins for the modules that make bundles; what they were asked for."""
    asked = []

    def make(name):
        def maker(source, folder, **options):
            asked.append((name, source, options))
            if source == "bad":
                Path(folder).mkdir()
                (Path(folder) / "half").touch()
                raise CheckpointError(f"no weights for {folder}")
            Path(folder).mkdir()
            (Path(folder) / "coding.npz").write_text(source)

        return maker

    importer, exporter = types.ModuleType("import_torch"), types.ModuleType("export")
    importer.import_torch, exporter.export_workdir = make("import"), make("export")
    monkeypatch.setitem(sys.modules, "cdc_jax.codec.import_torch", importer)
    monkeypatch.setitem(sys.modules, "cdc_jax.training.export", exporter)
    return asked


def test_bundles_are_made(cdc, makers):
    assert cdc("import-torch", "x.pt", "out")[::2] == (0, ["cdc: x.pt -> out"])
    assert cdc("export", "run", "out2", "--step=5", "--quiet") == (0, "", [])
    assert makers == [("import", "x.pt", {}), ("export", "run", {"step": 5, "best": False})]
    assert tree() == ["out/coding.npz", "out2/coding.npz"]
    Path("empty").mkdir()
    assert cdc("export", "run", "empty", "--quiet")[0] == 0
    assert makers[-1] == ("export", "run", {"step": None, "best": False})
    assert cdc("export", "run", "best", "--best", "--quiet")[0] == 0
    assert makers[-1] == ("export", "run", {"step": None, "best": True})
    assert cdc("export", "run", "both", "--best", "--step=5")[0] == 2
    assert tree("empty") == ["coding.npz"]


def test_an_existing_bundle_is_kept_unless_forced(cdc, makers):
    Path("out").mkdir()
    Path("out/coding.npz").write_text("precious")
    fails(cdc("export", "run", "out"), 1, "out", "--force")
    assert makers == []
    fails(cdc("export", "bad", "out", "--force"), 1, "no weights for", "out")
    assert Path("out/coding.npz").read_text() == "precious" and tree() == ["out/coding.npz"]
    assert cdc("export", "run", "out", "--force", "--quiet")[0] == 0
    assert Path("out/coding.npz").read_text() == "run" and tree() == ["out/coding.npz"]


def test_force_replaces_nothing_but_bundles(cdc, makers):
    Path("home").mkdir()
    Path("home/letter").write_text("precious")
    for output in ("home", "home/letter"):
        fails(cdc("import-torch", "x.pt", output, "--force"), 1, output, "not a bundle")
    fails(cdc("import-torch", "x.pt", "home/letter/out"), 1, "home/letter/out")
    code, _, err = cdc("import-torch", "bad", "new")
    assert (code, err) == (1, ["cdc: no weights for new"])
    assert tree() == ["home/letter"] and makers[-1] == ("import", "bad", {})


@pytest.mark.parametrize("words", [["import-torch"], ["import-torch", "a"], ["export", "a", "b", "c"]])
def test_bundle_makers_take_two_names(cdc, makers, words):
    fails(cdc(*words), 2, "--help")
    assert makers == []
