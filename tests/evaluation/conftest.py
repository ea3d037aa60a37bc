"""A small evaluation that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_jax.io.images import write_image

pytest.importorskip("matplotlib", reason="an evaluation draws: pip install '.[eval]'")
pytest.importorskip("bjontegaard", reason="an evaluation needs bjontegaard: pip install '.[eval]'")

from cdc_jax.evaluation.evaluate import evaluate  # noqa: E402
from cdc_jax.evaluation.settings import Settings  # noqa: E402
from tests.evaluation.fakes import FakeBundles, FakeMetrics  # noqa: E402


def textured(seed, height=96, width=128):
    """uint8 [h, w, 3] with smooth parts and edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = sum(np.sin(x / rng.uniform(4, 30) + y / rng.uniform(4, 30) + c)[..., None] for c in range(4))
    color = rng.uniform(20, 45, 3)
    return np.clip(128 + waves * color + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def images(tmp_path):
    """A folder with three images, one of them in a subfolder."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "more/c.png")):
        write_image(folder / name, textured(number))
    return folder


class Runs:
    """Evaluations of one folder, with the same fakes."""

    def __init__(self, images, out):
        self.images, self.out = images, out
        self.bundles, self.metrics, self.logged = FakeBundles(), FakeMetrics(), []
        self.defaults = {
            "models": (["runs/fine", "runs/middle", "runs/coarse"],),
            "steps": (1, 4),
            "metrics": ("psnr-rgb", "lpips-alex"),
            "codecs": ("jpeg", "webp"),
            "codec_qualities": (3, 8, 18, 40, 70, 90),
            "report_images": 2,
        }

    def __call__(self, **changes):
        settings = Settings(images=str(self.images), out=str(self.out), **{**self.defaults, **changes})
        return evaluate(settings, load_codec=self.bundles, metric_loaders=self.metrics, log=self.logged.append)


@pytest.fixture
def runs(images, tmp_path, monkeypatch):
    """Runs evaluations of the three images, without plots."""
    monkeypatch.setattr("cdc_jax.evaluation.evaluate.draw_plots", lambda *arguments: {})
    return Runs(images, tmp_path / "out")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished evaluation: (what `evaluate` returned, its folder)."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "images").mkdir()
    for number in range(2):
        write_image(folder / "images" / f"image{number}.png", textured(number))
    return Runs(folder / "images", folder / "out")(), folder / "out"
