"""Evaluating released checkpoints in one command, with random weights in files of the same layout."""

import json
import shutil

import pytest

from cdc_jax.evaluation.cdc import default_steps
from cdc_jax.evaluation.released import import_released
from cdc_jax.models.config import ModelConfig


@pytest.fixture
def released(shared_dir, tmp_path):
    """A folder with a file of each variant, named like the released ones."""
    folder = tmp_path / "released"
    (folder / "x_param").mkdir(parents=True)
    stem = "image-l2-use_weight5-vimeo-d64-t8193-b0.0064-x-cosine-01-float32-aux0.0_2.pt"
    shutil.copy(shared_dir / "golden" / "xparam_dim8.pt", folder / "x_param" / stem)
    shutil.copy(shared_dir / "golden" / "epsilonparam_dim8.pt", folder / "eps-b0.2048-aux0.9lpips.pt")
    return folder


@pytest.mark.slow
def test_each_is_imported_once_and_evaluated(runs, released):
    (runs.images / "b.png").unlink()
    (runs.images / "more" / "c.png").unlink()
    import cdc_jax

    runs.bundles = cdc_jax.load_codec
    settings = {"models": (), "released": str(released), "steps": (1,), "codecs": ("jpeg",)}
    result = runs(**settings)
    names = [curve.name for curve in result.curves]
    assert names == ["CDC ε, ρ = 0.9, 1 step", "CDC x, ρ = 0, 1 step", "JPEG"]
    bundles = sorted(path.name for path in (runs.out / "bundles").iterdir() if path.is_dir())
    assert len(bundles) == 2 and bundles[1].startswith("image-l2-use-weight5")
    assert sum("importing" in line for line in runs.logged) == 2
    again = runs(**settings)
    assert sum("importing" in line for line in runs.logged) == 2
    assert [curve.scores for curve in again.curves] == [curve.scores for curve in result.curves]
    assert json.loads((runs.out / "codecs" / "cdc-x-0-1-step.json").read_text())["results"]["bpp"]


def test_families_and_the_cache(tmp_path, monkeypatch):
    """Which files form one curve, and when a file is imported again. The import is replaced."""
    imported = []

    def import_torch(path, folder):
        imported.append(path.name)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model": {"prediction": "x"}}')

    monkeypatch.setattr("cdc_jax.evaluation.released.import_torch", import_torch)
    files = ["x-b0.0032-aux0.0_2.pt", "x-b0.0064-aux0.0_2.pt", "x-b0.2048-aux0.9lpips_2.pt", "other.pt"]
    for name in files:
        (tmp_path / name).write_text(name)
    families, names = import_released(tmp_path, tmp_path / "cache")
    assert names == ["CDC x", "CDC x, ρ = 0", "CDC x, ρ = 0.9"]
    assert [len(family) for family in families] == [1, 2, 1] and sorted(imported) == sorted(files)
    assert import_released(tmp_path, tmp_path / "cache") == (families, names) and len(imported) == 4
    (tmp_path / "other.pt").write_text("another file of that name")
    changed, _ = import_released(tmp_path, tmp_path / "cache")
    assert imported[4:] == ["other.pt"] and changed[0] != families[0] and changed[1:] == families[1:]


def test_the_papers_step_counts():
    assert default_steps(ModelConfig()) == (1, 5, 17, 65)
    assert default_steps(ModelConfig(prediction="epsilon")) == (5, 20, 200)
