"""`cdc evaluate --compare`: scores of one folder's images against another's."""

from __future__ import annotations

import csv
import io
import math
import shutil

import numpy as np
import pytest

from cdc_jax import cli
from cdc_jax.evaluation.folder_comparison import FolderComparison, compare_folders
from cdc_jax.io.images import read_image, write_image
from cdc_jax.metrics import load_metric, psnr_db
from tests.evaluation.conftest import textured


@pytest.fixture
def decoded(images, tmp_path):
    """JPEG files of the images, with other suffixes."""
    folder = tmp_path / "decoded"
    (folder / "more").mkdir(parents=True)
    for name in ("a", "b", "more/c"):
        write_image(folder / f"{name}.jpg", read_image(images / f"{name}.png"), quality=30)
    return folder


def test_scores_means_and_intervals(images, decoded):
    done = []
    result = compare_folders(str(images), str(decoded), ["psnr-rgb", "ssim"], progress=lambda: done.append(1))
    assert list(result.scores) == ["a.png", "b.png", "more/c.png"] and not result.failed and len(done) == 3
    for name, scores in result.scores.items():
        pair = read_image(images / name), read_image((decoded / name).with_suffix(".jpg"))
        assert scores["psnr-rgb"] == pytest.approx(psnr_db(*pair), abs=1e-3)
        ssim = load_metric("ssim")
        assert scores["ssim"] == pytest.approx(ssim.score(ssim.reference(pair[0]), pair[1][None])[0], abs=1e-5)
    mean, values = result.mean("psnr-rgb"), [scores["psnr-rgb"] for scores in result.scores.values()]
    assert (mean.value, mean.images) == (pytest.approx(np.mean(values)), 3)
    assert mean.half_width == pytest.approx(1.96 * np.std(values, ddof=1) / math.sqrt(3))


def test_equal_and_single_images_have_no_interval(images):
    result = compare_folders(str(images), str(images), ["psnr-rgb", "ssim"])
    assert result.mean("psnr-rgb").images == 0 and math.isnan(result.mean("psnr-rgb").value)
    assert result.mean("ssim").value == pytest.approx(1)
    alone = FolderComparison({"a": {"ssim": 0.5}}, {}).mean("ssim")
    assert (alone.value, alone.images) == (0.5, 1) and math.isnan(alone.half_width)


def test_the_interval_holds_the_mean_that_was_drawn_from():
    """In about 95 of 100 samples."""
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        drawn = random.normal(30, 2, 100)
        mean = FolderComparison({str(i): {"m": value} for i, value in enumerate(drawn)}, {}).mean("m")
        inside += abs(mean.value - 30) <= mean.half_width
    assert 930 <= inside <= 970


@pytest.fixture
def cdc(capsys):
    def run(*words):
        code = cli.main(["evaluate", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return run


def test_the_command_prints_csv(cdc, images, decoded):
    code, out, err = cdc("--compare", images, decoded, "--metrics", "psnr-rgb", "ssim")
    rows = list(csv.reader(io.StringIO(out)))
    assert (code, err, rows[0]) == (0, [], ["image", "psnr-rgb", "ssim"])
    assert [row[0] for row in rows[1:]] == ["a.png", "b.png", "more/c.png", "mean", "±"]
    assert float(rows[4][1]) == pytest.approx(np.mean([float(row[1]) for row in rows[1:4]]), rel=1e-5)


def test_two_files(cdc, images, decoded):
    code, out, err = cdc("--compare", images / "a.png", decoded / "b.jpg", "--metrics", "psnr-rgb")
    assert code == 0 and out.splitlines()[1].startswith("a.png,") and out.splitlines()[-1] == "±,nan"


def test_what_cannot_be_compared_is_a_line_each(cdc, images, decoded):
    (decoded / "a.jpg").unlink()
    write_image(decoded / "b.jpg", textured(5)[:50])
    code, out, err = cdc("--compare", images, decoded, "--metrics", "psnr-rgb")
    assert code == 1 and out.splitlines()[1].startswith("more/c.png,")
    assert err == [
        f"cdc: a.png: There is no image of this name in {decoded}.",
        "cdc: b.png: The images have different sizes, 128x96 and 128x50.",
    ]
    shutil.rmtree(decoded / "more")
    code, out, err = cdc("--compare", images, decoded, "--metrics", "psnr-rgb")
    assert (code, out) == (1, "") and "None of the 3 images could be compared: a.png" in err[0]


def test_mistakes_are_one_line(cdc, images, decoded):
    for words, message in (
        ([images], "expected 2 arguments"),
        ([images, decoded, "--images", images], "neither --images nor --out"),
        ([images, decoded / "none"], "no such folder"),
        ([images, decoded, "--metrics", "beauty"], "beauty"),
        ([images, decoded, "--metrics", "fd-vgg"], "compares sets"),
    ):
        code, out, err = cdc("--compare", *words)
        assert (code, out, len(err)) == (2, "", 1) and message in err[0]
    assert cdc() == (2, "", ["cdc: Give --images and --out, or --compare with two folders."])
    shutil.copy(decoded / "a.jpg", decoded / "a.png")
    code, _, err = cdc("--compare", images, decoded)
    assert code == 2 and "have one name" in err[0]
