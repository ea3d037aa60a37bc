"""`cdc compress` with several models and a target: the choice is logged; a failure names the nearest model."""

from pathlib import Path

import numpy as np
import pytest

from cdc_jax import cli
from cdc_jax.io.images import write_image
from tests.evaluation.fakes import FakeBundles


@pytest.fixture
def compress(tmp_path, monkeypatch, capsys):
    """Compresses an image with three models; returns (exit code, the file or None, standard error)."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(60, 190, (64, 96, 3)).astype(np.uint8)
    write_image("a.png", image)
    bundles, names = FakeBundles(), ("fine", "coarse", "middle")

    def run(*words):
        models = [f"--model={name}" for name in names]
        code = cli.main(["compress", "a.png", *models, "--force", *map(str, words)], load_codec=bundles)
        data = Path("a.cdc").read_bytes() if Path("a.cdc").exists() else None
        return code, data, capsys.readouterr().err

    run.sizes = {name: len(bundles(name, max_pixels=0).compress(image)) for name in names}
    return run


@pytest.mark.parametrize(
    ("words", "name", "reason"),
    [
        (["--target-bytes", 10**6], "fine", "largest of 3 that fit"),
        (["--target-bpp", 100], "fine", "largest of 3 that fit"),
        (["--min-psnr", 1, "--steps", 1], "coarse", "dB"),
        (["--min-psnr", 38, "--steps", 1], "fine", "dB"),
    ],
)
def test_the_choice_is_made_and_logged(compress, words, name, reason):
    code, data, err = compress(*words)
    assert code == 0 and len(data) == compress.sizes[name]
    assert f", by {name} (" in err and reason in err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--target-bytes", 10], ["a.png", "10 bytes", "nearest is coarse with"]),
        (["--target-bpp", 0.001], ["a.png", "0.001 bpp", "nearest is coarse with"]),
        (["--min-psnr", 90, "--steps", 1], ["a.png", "90 dB", "nearest is fine with"]),
    ],
)
def test_impossible_targets_are_one_line(compress, words, parts):
    code, data, err = compress(*words)
    assert code == 1 and data is None
    assert err.count("\n") == 1 and all(part in err for part in parts)


@pytest.mark.parametrize("words", [["--target-bpp", 0], ["--min-psnr", "x"], ["--min-psnr", 3, "--target-bpp", 1], []])
def test_usage_errors(compress, words):
    code, data, err = compress(*words)
    assert code == 2 and data is None and err.count("\n") == 1
