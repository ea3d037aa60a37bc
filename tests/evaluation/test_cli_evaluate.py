"""The command `cdc evaluate`."""

import csv
import json
import sys

import pytest

from cdc_jax import cli
from tests.evaluation.fakes import FakeMetrics


@pytest.fixture
def cdc(runs, monkeypatch, capsys):
    """Runs a command line; (exit code, standard error)."""
    fake = FakeMetrics()
    registry = type(sys)("registry")
    for name in ("IMAGE_METRICS", "SET_METRICS", "load_metric", "load_set_metric"):
        setattr(registry, name, getattr(fake, name))
    monkeypatch.setitem(sys.modules, "cdc_jax.metrics.registry", registry)
    monkeypatch.setattr("cdc_jax.metrics.registry", registry, raising=False)
    monkeypatch.setattr("cdc_jax.evaluation.evaluate.shipped_bundle", lambda: "cdc_jax/every")

    def run(*words):
        return cli.main([str(word) for word in words], load_codec=runs.bundles), capsys.readouterr().err

    return run


def test_a_whole_evaluation(cdc, runs):
    words = ["evaluate", "--images", runs.images, "--out", runs.out, "--metrics", "psnr-rgb", "lpips-alex"]
    words += ["--codecs", "jpeg", "--codec-quality", 10, 50, 90, "--steps", 1, 4, "--seed", 3, "--gamma", 0.5]
    code, err = cdc(*words, "--model", "x/fine", "x/coarse", "--anchor", "jpeg")
    assert code == 0 and "3 of 3 images evaluated" in err and str(runs.out / "report.html") in err
    assert "1 step" in (runs.out / "curves.csv").read_text()
    assert next((runs.out / "results" / "a.png").glob("cdc-*-4-steps-seed3-gamma0.5.json"))
    (runs.images / "corrupt.png").write_text("no image")
    code, err = cdc(*words, "--quiet", "--model", "x/fine")
    assert code == 1 and err.count("\n") == 1 and err.startswith("cdc: ") and "corrupt.png" in err


def test_a_folder_that_another_evaluation_is_in(cdc, runs):
    from cdc_jax.io.folder_lock import exclusive

    runs.out.mkdir(parents=True)
    words = ["evaluate", "--images", runs.images, "--out", runs.out, "--codecs", "jpeg", "--codec-quality", 10]
    with exclusive(runs.out, "the test"):
        code, err = cdc(*words, "--model", "x/fine", "--metrics", "psnr-rgb", "--quiet")
    assert code == 1 and err.count("\n") == 1 and "in use by another process: wait for that evaluation to end" in err
    assert [path.name for path in runs.out.iterdir()] == [".lock"]


def test_the_shipped_model_at_given_sizes(cdc, runs):
    words = ["evaluate", "--images", runs.images, "--out", runs.out, "--target-bpp", 1, 2, "--codecs", "jpeg"]
    assert cdc(*words, "--quiet") == (0, "")
    (comparison,) = json.loads((runs.out / "same_size.json").read_text())
    assert comparison["ours"] == "CDC, 1 step"
    assert [(cell["codec"], cell["target_bpp"]) for cell in comparison["cells"]] == [
        ("CDC, 1 step", 1.0),
        ("JPEG", 1.0),
        ("CDC, 1 step", 2.0),
        ("JPEG", 2.0),
    ]
    assert list(comparison["cells"][0]["scores"]) == ["psnr-rgb", "ms-ssim-rgb", "lpips-alex", "lpips-vgg", "dists"]


def test_qualities_of_a_model_and_of_the_others(cdc, runs):
    words = [
        "evaluate",
        "--images",
        runs.images,
        "--out",
        runs.out,
        "--quiet",
        "--metrics",
        "psnr-rgb",
        "--steps",
        0,
        2,
    ]
    words += ["--quality", 10, 62.5, "--codecs", "jpeg", "--codec-quality", 20]
    assert cdc(*words) == (0, "")
    with open(runs.out / "curves.csv", newline="") as file:
        rows = [(row["codec"], row["setting"]) for row in csv.DictReader(file)]
    ours = [(f"CDC, {steps}", f"quality {q}") for steps in ("0 steps (preview)", "2 steps") for q in ("10", "62.5")]
    assert rows == [*ours, ("JPEG", "quality 20")]
    assert cdc(*words, "--model") == (0, "")
    assert "CDC" not in (runs.out / "curves.csv").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "o"], "--images"),
        (["--images", "."], "--out"),
        (["--images", "missing", "--out", "o", "--codecs", "jpeg"], "missing: There is no such folder"),
        (["--images", ".", "--out", "o", "--codec-quality", "101"], "101"),
        (["--images", ".", "--out", "o", "--steps", "-1"], "-1"),
        (["--images", ".", "--out", "o", "--target-bpp", "0"], "hold no image"),
        (["--images", ".", "--out", "o", "--target-bpp", "1", "--quality", "5"], "not allowed with"),
        (["--images", "IMAGES", "--out", "o", "--model", "fine", "--target-bpp", "1"], "fine has one rate"),
        (["--images", "IMAGES", "--out", "o", "--codecs", "bpg"], "bpg"),
        (["--images", "IMAGES", "--out", "o", "--codecs", "jpeg", "--metrics", "beauty"], "beauty"),
        (["--images", "IMAGES", "--out", "o", "--released", "."], "rhyang/CDC_params"),
        (["--images", "IMAGES", "--out", "o", "extra"], "extra"),
    ],
)
def test_mistakes_are_reported_in_one_line(cdc, runs, words, message, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, err = cdc("evaluate", *(str(runs.images) if word == "IMAGES" else word for word in words))
    assert code == 2 and message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("package", ["matplotlib", "bjontegaard"])
def test_a_missing_package_is_named_before_the_work(cdc, runs, monkeypatch, package):
    find_spec = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == package else find_spec(name, *rest)
    )
    code, err = cdc("evaluate", "--images", runs.images, "--out", runs.out, "--codecs", "jpeg")
    assert code == 1 and package in err and "pip install '.[eval]'" in err
    assert not runs.out.exists()


def test_a_former_option_names_the_new_one(cdc):
    code, err = cdc("evaluate", "--images", "x", "--out", "y", "--qualities", 30)
    assert code == 2 and err.count("\n") == 1 and "--qualities is now --codec-quality" in err


def test_models_of_the_hub(cdc, runs):
    """The loader gets their names, and the curves are called after them."""
    words = ["evaluate", "--images", runs.images, "--out", runs.out, "--metrics", "psnr-rgb", "--codecs", "--quiet"]
    models = ["--model", "hf://me/fine", "--model", "hf://me/coarse@v1/every"]
    assert cdc(*words, *models, "--steps", 1, "--quality", 50) == (0, "")
    assert set(runs.bundles.codecs) == {"fine", "every"}
    table = (runs.out / "curves.csv").read_text()
    assert "CDC fine, 1 step" in table and "CDC every, 1 step" in table


def test_an_unwritable_output_folder_is_one_line_before_the_work(cdc, runs, tmp_path):
    (tmp_path / "file").touch()
    code, err = cdc("evaluate", "--images", runs.images, "--out", tmp_path / "file/out", "--model", "x/fine")
    assert code == 1 and err.count("\n") == 1 and "file/out: Cannot be created" in err
