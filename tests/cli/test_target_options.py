"""`cdc compress` with several models and a target: it picks, says what, or refuses with the nearest possible."""

from pathlib import Path

import numpy as np
import pytest

from cdc_jax import cli
from cdc_jax.io.images import write_image
from tests.evaluation.fakes import FakeBundles


@pytest.fixture
def compress(tmp_path, monkeypatch, capsys):
    """Compresses one image with the models coarse, middle, fine; (exit code, the file or None, standard error)."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_image("a.png", rng.integers(60, 190, (64, 96, 3)).astype(np.uint8))
    for name in ("coarse", "middle", "fine"):
        Path(name).mkdir()
        Path(name, "coding.npz").touch()
    bundles = FakeBundles()

    def run(*words):
        words = ["compress", "a.png", "--model", "fine", "coarse", "middle", "--force", *map(str, words)]
        code = cli.main(words, load_codec=bundles)
        data = Path("a.cdc").read_bytes() if Path("a.cdc").exists() else None
        return code, data, capsys.readouterr().err

    run.sizes = {name: len(bundles(name, max_pixels=0).compress(image())) for name in ("coarse", "middle", "fine")}
    return run


def image():
    from cdc_jax.io.images import read_image

    return read_image("a.png")


def test_the_largest_file_within_a_size(compress):
    assert compress.sizes["coarse"] < compress.sizes["middle"] < compress.sizes["fine"]
    for name, size in compress.sizes.items():
        code, data, err = compress("--target-bytes", size)
        assert code == 0 and len(data) == size and f"by {name}" in err
        code, data, err = compress("--target-bpp", 8 * (size + 0.5) / (64 * 96))
        assert code == 0 and len(data) == size and f"by {name}" in err


def test_the_smallest_file_with_a_quality(compress):
    code, data, err = compress("--min-psnr", 1, "--steps", 1)
    assert code == 0 and len(data) == compress.sizes["coarse"] and "by coarse" in err and "dB" in err
    code, data, err = compress("--min-psnr", 38, "--steps", 1)
    assert code == 0 and len(data) == compress.sizes["fine"] and "by fine" in err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--target-bytes", 10], ["10 bytes", "nearest is coarse with"]),
        (["--target-bpp", 0.001], ["0.001 bpp", "nearest is coarse with"]),
        (["--min-psnr", 90, "--steps", 1], ["90 dB", "nearest is fine with"]),
    ],
)
def test_impossible_targets_name_the_nearest_possible(compress, words, parts):
    code, data, err = compress(*words)
    assert code == 1 and data is None
    assert err.count("\n") == 1 and all(part in err for part in parts)


@pytest.mark.parametrize("words", [["--target-bpp", 0], ["--min-psnr", "x"], ["--min-psnr", 3, "--target-bpp", 1], []])
def test_mistakes(compress, words):
    code, data, err = compress(*words)
    assert code == 2 and data is None and err.count("\n") == 1
