"""The quality of `cdc compress` with a variable-rate model: given as a number, or found for a target."""

from pathlib import Path

import pytest

from cdc_jax.cli import main
from cdc_jax.io import cdc_file
from cdc_jax.io.images import write_image
from cdc_jax.metrics import psnr_db
from tests.cli.fake_codec import fails, put, tree

MODEL = "--model=every-rate"


def quality_of(path):
    file = cdc_file.unpack(Path(path).read_bytes())
    return file.version, file.quality


@pytest.mark.parametrize("option, quality", [("-q37.25", 37.25), ("-q=0", 0), ("--quality=100", 100), ("-q 5", 5)])
def test_the_quality_reaches_the_codec(cdc, bundles, photo, option, quality):
    assert cdc("compress", *option.split(), "photo.png", MODEL)[0] == 0
    assert bundles.codecs["every-rate"].written == [quality]
    assert quality_of("photo.cdc") == (2, quality)
    assert f"quality {quality:g}, format 2" in cdc("info", "photo.cdc")[1]


def test_the_default_is_the_codecs(cdc, bundles, photo):
    for model in ("every-rate", "b"):
        assert cdc("compress", "photo.png", f"--model={model}", "--force")[0] == 0
        assert bundles.codecs[model].written == [None]
    assert quality_of("photo.cdc")[0] == 1


@pytest.mark.parametrize("value", ["-1", "100.1", "nan", "inf", "high", "1e3", ""])
def test_invalid_qualities_are_usage_errors(cdc, bundles, photo, value):
    fails(cdc("compress", "photo.png", MODEL, f"--quality={value}"), 2, "-q/--quality", "0 to 100")
    assert bundles.loaded == [] and tree() == ["photo.png"]


def test_a_model_of_one_rate_is_reported_once(cdc, photo):
    put("b.png")
    fails(cdc("compress", "photo.png", "b.png", "--model=b", "-q", "50"), 2, "one rate")
    assert tree() == ["b.png", "photo.png"]


@pytest.mark.parametrize("words", [["-q"], ["-q50"], ["-q", "50"]])
@pytest.mark.parametrize("command", ["decompress", "import-torch", "export", "evaluate"])
def test_in_other_subcommands_q_is_an_error_that_names_quiet(cdc, bundles, command, words):
    put("a.cdc")
    fails(cdc(command, "a.cdc", *words), 2, "-q is the quality of cdc compress", "--quiet")
    assert bundles.loaded == []


@pytest.mark.parametrize("target", ["--target-bpp=1", "--target-bytes=900", "--min-psnr=30"])
def test_a_target_excludes_a_quality(cdc, bundles, photo, target):
    fails(cdc("compress", "photo.png", MODEL, target, "--quality=50"), 2, "-q or a target")
    assert bundles.loaded == [] and tree() == ["photo.png"]


def test_a_size_is_reached_within_one_model(cdc, bundles, photo):
    least, most = (_size(cdc, quality) for quality in (0, 100))
    limit = (least + most) // 2
    bundles.codecs["every-rate"].written.clear()
    code, _, err = cdc("compress", "photo.png", MODEL, f"--target-bytes={limit}", "--force")
    version, quality = quality_of("photo.cdc")
    assert code == 0 and version == 2 and limit - 2 <= Path("photo.cdc").stat().st_size <= limit
    assert len(err) == 1 and f"by every-rate, quality {quality:.2f} (" in err[0] and "bpp)" in err[0]
    assert len(bundles.codecs["every-rate"].written) < 15
    code, _, err = cdc("compress", "photo.png", MODEL, f"--target-bytes={least}", "--force")
    assert code == 0 and quality_of("photo.cdc")[1] < 1 and "bpp)" in err[0]
    fails(cdc("compress", "photo.png", MODEL, f"--target-bytes={least - 1}", "--force"), 1, "quality 0.00", str(least))


def _size(cdc, quality):
    assert cdc("compress", "photo.png", MODEL, "-q", str(quality), "--force")[0] == 0
    return Path("photo.cdc").stat().st_size


def test_the_choice_is_logged_for_every_file(cdc):
    put("in/a.png", 1), put("in/b.png", 2)
    code, _, err = cdc("compress", "in", MODEL, "--target-bytes=200")
    logged = [line for line in err if "by every-rate, quality" in line]
    assert code == 0 and sorted(line.split(" -> ")[0] for line in logged) == ["cdc: in/a.png", "cdc: in/b.png"]
    assert cdc("compress", "in", MODEL, "--target-bytes=200", "--force", "--quiet") == (0, "", [])


def test_metrics_are_printed_on_request(cdc, bundles, photo):
    code, _, err = cdc("compress", "photo.png", "--print-metrics", "--steps=3", "--model=b")
    assert code == 0 and err[0].endswith(" s, PSNR inf dB, SSIM 1.0000")
    assert bundles.codecs["b"].calls == [{"steps": 3, "seed": 0, "gamma": None, "eta": 0.0}]


def test_metrics_are_those_of_the_decoded_image(compact_bundle, compact_codec, photograph, tmp_path, capsys):
    write_image(tmp_path / "a.png", photograph)
    words = ["--print-metrics", "--steps=0", "-q40", "--model", str(compact_bundle)]
    assert main(["compress", str(tmp_path / "a.png"), *words]) == 0
    decoded = compact_codec.decompress((tmp_path / "a.cdc").read_bytes(), steps=0)
    assert f"PSNR {psnr_db(photograph, decoded):.2f} dB, SSIM 0." in capsys.readouterr().err
