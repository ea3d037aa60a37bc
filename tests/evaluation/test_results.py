"""The files that an evaluation writes."""

import csv
import json
import math

import pytest

from cdc_jax.evaluation.curves import Curve
from cdc_jax.evaluation.result_store import finite
from cdc_jax.evaluation.results import compressai_results
from cdc_jax.evaluation.scoring import MetricFacts


def test_compressai_reads_ours(finished):
    evaluation, folder = finished
    files = sorted(path.name for path in (folder / "codecs").iterdir())
    assert files == ["cdc-1-step.json", "cdc-4-steps.json", "jpeg.json", "webp.json"]
    for curve, name in zip(evaluation.curves, ("cdc-1-step", "cdc-4-steps", "jpeg", "webp"), strict=True):
        file = json.loads((folder / "codecs" / f"{name}.json").read_text())
        assert list(file) == ["name", "description", "results"]
        assert file["name"] == curve.name and file["description"]
        results = file["results"]
        assert set(results) == {"bpp", "psnr-rgb", "lpips-alex", "encoding_time", "decoding_time"}
        assert {len(values) for values in results.values()} == {len(curve.bpp)}
        assert all(isinstance(value, float) for values in results.values() for value in values)
        assert results["bpp"] == sorted(results["bpp"])


def test_rows_per_image_and_rate_point(finished):
    evaluation, folder = finished
    with open(folder / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (3 * 2 + 6 + 6)
    for row in rows:
        assert float(row["bpp"]) == pytest.approx(8 * int(row["bytes"]) / (int(row["width"]) * int(row["height"])))
    as_json = json.loads((folder / "images.json").read_text())
    assert as_json["left_out"] == {} and len(as_json["images"]) == len(rows)
    assert as_json["images"][0]["psnr-rgb"] == pytest.approx(float(rows[0]["psnr-rgb"]))
    with open(folder / "curves.csv", newline="") as file:
        averages = list(csv.DictReader(file))
    assert len(averages) == 3 * 2 + 6 + 6
    written = [float(row["psnr-rgb_interval"]) for row in averages]
    assert written == pytest.approx([width for curve in evaluation.curves for width in curve.intervals["psnr-rgb"]])


def test_bd_rates_are_written_with_their_reasons(finished):
    evaluation, folder = finished
    rates = json.loads((folder / "bd_rates.json").read_text())
    assert len(rates) == len(evaluation.rates) == 3 * 2
    assert {rate["anchor"] for rate in rates} == {"JPEG"}
    assert all((rate["percent"] is None) == bool(rate["reason"]) for rate in rates)


def test_json_holds_no_nan():
    curve = Curve("a", "baseline", [""], [1.0], {"psnr-rgb": [math.nan]})
    text = json.dumps(compressai_results(curve, [MetricFacts("psnr-rgb", "PSNR", True)]), allow_nan=False)
    assert json.loads(text)["results"]["psnr-rgb"] == [None]
    assert [finite(value) for value in (1.5, math.nan, math.inf, -math.inf)] == [1.5, None, "inf", "-inf"]


def test_plots_in_both_formats(finished):
    from PIL import Image

    _, folder = finished
    names = sorted(path.name for path in (folder / "plots").iterdir())
    stems = [f"{kind}-{metric}" for kind in ("rd", "seconds", "steps") for metric in ("lpips-alex", "psnr-rgb")]
    assert names == [f"{stem}{suffix}" for stem in stems for suffix in (".png", ".svg")]
    with Image.open(folder / "plots" / "rd-psnr-rgb.png") as image:
        assert image.width > 800
    svg = (folder / "plots" / "rd-psnr-rgb.svg").read_text()
    assert all(text in svg for text in ("CDC, 1 step", "CDC, 4 steps", "JPEG", "WebP", "PSNR (dB)", "bits per pixel"))
    assert "diffusion steps" in (folder / "plots" / "steps-psnr-rgb.svg").read_text()
    svg = (folder / "plots" / "seconds-psnr-rgb.svg").read_text()
    assert "decoding time" in svg and svg.count(">4</text>") >= 3  # the number of steps, beside each bundle's point
