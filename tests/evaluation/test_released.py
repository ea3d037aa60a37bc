"""The released checkpoints in one command, with files of their layout and random weights."""

import json
import shutil

import pytest

from cdc_jax.evaluation.our_codec import paper_steps

pytest.importorskip("torch", reason="reading .pt files needs PyTorch: pip install '.[torch]'")
pytestmark = pytest.mark.torch


@pytest.fixture
def released(shared_dir, tmp_path):
    """A folder with a file of each variant, named as the released ones are."""
    folder = tmp_path / "released"
    (folder / "x_param").mkdir(parents=True)
    stem = "image-l2-use_weight5-vimeo-d64-t8193-b0.0064-x-cosine-01-float32-aux0.0_2.pt"
    shutil.copy(shared_dir / "golden" / "xparam_dim8.pt", folder / "x_param" / stem)
    shutil.copy(shared_dir / "golden" / "epsilonparam_dim8.pt", folder / "eps-b0.2048-aux0.9lpips.pt")
    return folder


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
    assert sum("importing" in line for line in runs.said) == 2
    again = runs(**settings)
    assert sum("importing" in line for line in runs.said) == 2
    assert [curve.scores for curve in again.curves] == [curve.scores for curve in result.curves]
    assert json.loads((runs.out / "codecs" / "cdc-x-0-1-step.json").read_text())["results"]["bpp"]


def test_the_papers_step_counts():
    assert paper_steps("x") == (1, 5, 17, 65)
    assert paper_steps("epsilon") == (5, 20, 200)
