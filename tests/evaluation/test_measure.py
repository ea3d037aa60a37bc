"""Measurements: real files, results reused unless stale, corrupt images left out of every average."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.evaluation.baselines import BASELINES, DEFAULT_BPP, baseline_points
from cdc_jax.io.images import read_image, write_image
from tests.evaluation.conftest import textured
from tests.evaluation.fakes import FakeMetrics


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_baselines_are_real_files_at_their_real_size(runs, name):
    if name == "jxl":
        pytest.importorskip("pillow_jxl", reason="JPEG XL needs pillow-jxl-plugin: pip install '.[eval]'")
    result = runs(models=(), codecs=(name,), codec_qualities=(20, 80))
    for image, records in result.measured.records.items():
        low, high = sorted(records.values(), key=lambda record: record.file_bytes)
        assert low.setting == "quality 20" and high.setting == "quality 80"
        assert low.scores["psnr-rgb"] < high.scores["psnr-rgb"]
        for record in (low, high):
            path = runs.out / "files" / image / f"{record.slug}{BASELINES[name].suffix}"
            assert record.file_bytes == path.stat().st_size
            assert record.bpp == 8 * path.stat().st_size / (96 * 128)
            with Image.open(io.BytesIO(path.read_bytes())) as file:
                assert file.format == BASELINES[name].format and file.size == (128, 96)
    curve = result.curves[0]
    assert curve.bpp == sorted(curve.bpp) and min(*curve.encoding_seconds, *curve.decoding_seconds) > 0


def test_finished_results_are_reused(runs):
    first = runs()
    coded, scored = len(runs.bundles.calls), len(runs.metrics.batches)
    again = runs()
    assert len(runs.bundles.calls) == coded and len(runs.metrics.batches) == scored
    assert [c.bpp for c in again.curves] == [c.bpp for c in first.curves]
    assert [c.scores for c in again.curves] == [c.scores for c in first.curves]
    assert [c.decoding_seconds for c in again.curves] == [c.decoding_seconds for c in first.curves]


def test_an_interrupted_evaluation_resumes(runs):
    whole = runs(steps=(1,))
    (runs.out / "results" / "b.png" / "webp-q40.json").unlink()
    (runs.out / "results" / "more" / "c.png" / "jpeg-q8.json").write_text('{"half')
    runs.bundles.codecs["fine"].calls.clear()
    runs.metrics.batches.clear()
    again = runs(steps=(1,))
    assert runs.metrics.batches == [(name, 1) for _ in range(2) for name in ("psnr-rgb", "lpips-alex")]
    assert not runs.bundles.codecs["fine"].calls
    assert [curve.scores for curve in again.curves] == [curve.scores for curve in whole.curves]


def test_a_new_metric_scores_stored_results(runs):
    runs(metrics=("psnr-rgb",))
    coded = len(runs.bundles.calls)
    result = runs(metrics=("psnr-rgb", "lpips-vgg"))
    assert len(runs.bundles.calls) == coded
    assert all(np.isfinite(curve.scores["lpips-vgg"]).all() for curve in result.curves)
    runs(metrics=("psnr-rgb",))
    assert "lpips" not in (runs.out / "images.csv").read_text()


@pytest.mark.parametrize("change", ["weights", "seed", "gamma", "image", "result"])
def test_stale_results_are_not_used(runs, change):
    settings = {"models": (["runs/fine"],), "steps": (4,), "codecs": ()}
    before = runs(**settings)
    codec = runs.bundles.codecs["fine"]
    codec.calls.clear()
    if change == "weights":
        codec.weights_sha256, codec.levels = "f" * 64, 64
    elif change == "image":
        write_image(runs.images / "a.png", textured(99))
    elif change == "result":  # the compressed file was replaced
        next((runs.out / "files" / "a.png").iterdir()).write_bytes(b"?")
    else:
        settings[change] = 1
    after = runs(**settings)
    redone = 1 if change in ("image", "result") else 3
    assert codec.calls.count("compress") >= redone and "decompress 4" in codec.calls
    if change == "result":
        assert after.curves[0].scores == before.curves[0].scores
    elif change != "gamma":  # the fake codec ignores it
        assert after.curves[0].scores != before.curves[0].scores


def test_the_original_is_prepared_once_and_a_curve_is_scored_in_one_call(runs):
    runs(models=(), codecs=("jpeg", "webp"), metrics=("lpips-alex",))
    assert runs.metrics.references == ["lpips-alex"] * 3
    assert runs.metrics.batches == [("lpips-alex", 6)] * 6


def test_one_file_for_all_step_counts_and_warm_times(runs):
    result = runs(models=(["runs/fine"],), codecs=(), steps=(1, 4))
    calls = runs.bundles.codecs["fine"].calls
    # All images are of one size: one call for the encoder and for each step count to compile, besides the timed ones.
    assert calls.count("compress") == 3 + 1
    assert calls.count("decompress 1") == calls.count("decompress 4") == 3 + 1
    records = [record for by_slug in result.measured.records.values() for record in by_slug.values()]
    firsts = [record.first_decoding_seconds for record in records]
    assert sum(seconds is not None for seconds in firsts) == 2
    assert result.curves[0].bpp == result.curves[1].bpp


def test_a_corrupt_image_is_left_out_of_every_average_alike(runs):
    expected = runs()
    (runs.images / "corrupt.png").write_bytes((runs.images / "a.png").read_bytes()[:500])
    (runs.images / "notes.png").write_text("no image")
    result = runs()
    assert sorted(result.measured.left_out) == ["corrupt.png", "notes.png"]
    assert any("corrupt.png" in line and "left out" in line for line in runs.logged)
    for curve, other in zip(result.curves, expected.curves, strict=True):
        assert (curve.bpp, curve.scores) == (other.bpp, other.scores)
    assert "corrupt.png" in (runs.out / "report.html").read_text()
    assert set(json.loads((runs.out / "images.json").read_text())["left_out"]) == set(result.measured.left_out)


def test_an_image_that_one_codec_cannot_store_is_in_no_average(runs):
    write_image(runs.images / "long.png", np.zeros((1, 16400, 3), np.uint8))  # WebP's limit is 16383
    result = runs()
    assert list(result.measured.left_out) == ["long.png"] and "WebP" in result.measured.left_out["long.png"]
    assert all("long.png" not in records for records in result.measured.records)


def test_an_image_too_small_for_a_metric_is_left_out_of_that_metric(runs):
    runs.metrics = FakeMetrics(smallest_side=64)
    expected = runs()
    write_image(runs.images / "small.png", textured(5, 32, 32))
    result = runs()
    assert result.curves[0].scores["lpips-alex"] == expected.curves[0].scores["lpips-alex"]
    assert result.curves[0].scores["psnr-rgb"] != expected.curves[0].scores["psnr-rgb"]
    assert "small.png left out of every codec" in (runs.out / "report.html").read_text()


def test_metrics_of_sets_compare_all_images(runs):
    result = runs(metrics=("fd-vgg",), models=(), codecs=("jpeg",), codec_qualities=(5, 95))
    low, high = result.curves[0].scores["fd-vgg"]
    assert low > high >= 0
    assert runs(metrics=("fd-vgg",), models=(), codecs=("jpeg",), codec_qualities=(5, 95)).curves[0].scores == {
        "fd-vgg": [low, high]
    }


def test_nothing_left_is_an_error(runs):
    for path in runs.images.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(CdcError, match="None of the 3 images"):
        runs()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"images": "nowhere"}, "nowhere"),
        ({"models": (), "codecs": ()}, "nothing to evaluate"),
        ({"codecs": ("bpg",)}, "bpg.*jpeg, webp"),
        ({"metrics": ("beauty",)}, "beauty"),
        ({"metrics": ("fid",)}, "--fid-weights"),
        ({"metrics": ("fid",), "fid_weights": "missing.pth"}, "missing.pth"),
        ({"anchor": "vtm"}, "vtm.*JPEG"),
        ({"steps": (9000,)}, "9000"),
        ({"models": (["fine", "fine"],)}, "same weights"),
        ({"models": (["fine", "epsilon"],)}, "different variants"),
        ({"models": (["fine", "every"],)}, "curve by itself"),
        ({"models": (["fine"],), "targets_bpp": (1.0,)}, "fine has one rate"),
        ({"models": (["every"],), "qualities": (101,)}, "101"),
        ({"steps": (0,)}, "0 steps; it takes 1 to"),
        ({"published": "missing.csv", "data_set": "kodak"}, "missing.csv"),
        ({"released": "."}, "rhyang/CDC_params.*aux0.0_2.pt"),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_measured(runs, settings, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "images" in settings:
        runs.images = settings.pop("images")
    with pytest.raises(ConfigError, match=words):
        runs(**settings)
    assert not (runs.out / "results").exists()


def test_several_families_are_several_curves(runs):
    result = runs(models=(["a/x-fine", "a/x-coarse"], ["b/epsilon-1"]), steps=(1, 4), codecs=())
    names = [curve.name for curve in result.curves]
    assert names == ["CDC x, 1 step", "CDC x, 4 steps", "CDC epsilon-1, 1 step", "CDC epsilon-1, 4 steps"]
    assert [len(curve.bpp) for curve in result.curves] == [2, 2, 1, 1]


def test_default_qualities_follow_from_the_sizes_of_files():
    skimage = pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    from pathlib import Path

    image = read_image(Path(skimage.__file__).parent / "data" / "coffee.png")
    for name in ("jpeg", "webp"):
        points = baseline_points([name], samples=lambda: [image])
        sizes = [len(point.encode(image, point.quality(image))) for point in points]
        bpp = [8 * size / (image.shape[0] * image.shape[1]) for size in sizes]
        assert len(bpp) >= 5 and bpp == sorted(bpp), name
        wanted = DEFAULT_BPP[-len(bpp) :]
        assert all(0.7 * target < rate <= target for rate, target in zip(bpp, wanted, strict=True)), (name, bpp)


@pytest.mark.parametrize("out", ["ev", "more/ev"])
def test_results_below_the_images_are_skipped(runs, out):
    runs.out = runs.images / out
    first, again = runs(steps=(1,)), runs(steps=(1,))
    assert list(first.measured.records) == list(again.measured.records) == ["a.png", "b.png", "more/c.png"]


def test_images_below_the_results_are_evaluated_and_the_same_folder_is_refused(runs):
    runs.out = runs.images.parent
    assert len(runs(models=(), codecs=("jpeg",), codec_qualities=(20,)).measured.records) == 3
    runs.out = runs.images
    with pytest.raises(ConfigError, match="choose another folder"):
        runs()


def test_a_variable_rate_model_is_a_curve_for_each_step_count(runs):
    result = runs(models=(["runs/every"],), codecs=(), steps=(0, 3), qualities=(20, 60, 90))
    assert [curve.name for curve in result.curves] == ["CDC, 0 steps (preview)", "CDC, 3 steps"]
    for curve in result.curves:
        assert curve.settings == ["quality 20", "quality 60", "quality 90"]
        assert curve.bpp == sorted(curve.bpp) and curve.side_shares == [0.25] * 3
        assert curve.scores["psnr-rgb"] == sorted(curve.scores["psnr-rgb"])
    calls = runs.bundles.codecs["every"].calls
    assert calls.count("analyze") == 3  # once per image, for all qualities
    runs(models=(["runs/every"],), codecs=(), steps=(0, 3), qualities=(20, 60, 90))
    assert calls.count("decompress 3") == 3 * 3 + 1
