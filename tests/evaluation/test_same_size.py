"""Comparisons at equal file sizes: the largest file within each target, and on how many images ours is better."""

import json
import math

import numpy as np
import pytest

from cdc_jax.evaluation.baselines import BASELINES, encode
from cdc_jax.evaluation.rate_points import RatePoint
from cdc_jax.evaluation.result_store import Record
from cdc_jax.evaluation.same_size import compare_at_same_size
from cdc_jax.evaluation.scoring import MetricFacts
from cdc_jax.evaluation.size_search import byte_limit, largest_within, settings_for
from cdc_jax.evaluation.tables import same_size
from cdc_jax.io.images import load_image

PSNR, LPIPS = MetricFacts("psnr-rgb", "PSNR (dB)", True), MetricFacts("lpips-alex", "LPIPS", False)


@pytest.mark.parametrize("limit", range(0, 14))
def test_the_largest_setting_within_a_limit(limit):
    sizes = [3, 3, 5, 8, 8, 12]
    fitting = [i for i, size in enumerate(sizes) if size <= limit]
    assert largest_within(sizes.__getitem__, 0, 5, limit) == (max(fitting) if fitting else None)


def test_settings_for_several_sizes_ask_for_each_file_once():
    asked = []

    def size_of(quality):
        asked.append(quality)
        return quality**2 + 10

    assert settings_for(size_of, 0, 100, (5, 10, 35, 36, 10_000)) == [0, 5, 99]
    assert len(asked) == len(set(asked))


def test_every_codec_has_its_largest_file_within_the_target(runs):
    result = runs(models=(["runs/every"],), codecs=("jpeg", "webp"), steps=(1, 3), targets_bpp=(1.5, 3.0))
    assert [comparison.ours for comparison in result.same_size] == ["CDC, 1 step", "CDC, 3 steps"]
    for name, records in result.measured.records.items():
        original, _ = load_image(runs.images / name, max_pixels=10**6)
        for record in records.values():
            limit = byte_limit(record.target_bpp, *original.shape[:2])
            if record.curve in ("JPEG", "WebP") and record.within_target:
                size = len(encode(BASELINES[record.curve.lower()], original, record.quality + 1))
            elif record.within_target:
                size = len(runs.bundles.codecs["every"].write(original, quality=min(record.quality + 2, 100)))
            else:
                assert record.quality == 0 and record.file_bytes > limit
                continue
            assert record.file_bytes <= limit < size or record.quality == 100
    assert any(record.within_target for records in result.measured.records.values() for record in records.values())


def test_searching_again_uses_what_is_stored(runs):
    settings = {"models": (["runs/every"],), "steps": (1,), "targets_bpp": (2.0,)}
    first = runs(**settings)
    calls = list(runs.bundles.calls)
    again = runs(**settings)
    assert runs.bundles.calls == calls and again.same_size == first.same_size
    cells = json.loads((runs.out / "same_size.json").read_text())[0]["cells"]
    assert [cell["codec"] for cell in cells] == ["CDC, 1 step", "JPEG", "WebP"]
    assert "(in brackets: images on which it is better)" in (runs.out / "report.html").read_text("utf-8")


class _Measured:
    set_scores = {}

    def __init__(self, records):
        self.records = records


def compared(*images):
    """A comparison of images with ((our bytes, PSNR, LPIPS), (JPEG's)) each, for a target of 80 bytes."""
    points = [
        RatePoint(
            curve=curve,
            setting="",
            slug=kind,
            identity={},
            quality=None,
            encode=None,
            decode=None,
            file=kind,
            suffix="",
            warm_key=None,
            kind=kind,
            target_bpp=0.5,
        )
        for curve, kind in (("JPEG", "baseline"), ("CDC, 1 step", "ours"))
    ]

    def record(kind, size, psnr, lpips):
        scores = {"psnr-rgb": psnr, "lpips-alex": lpips}
        return Record("", "", "", kind, 40, 32, size, 1.0, 1.0, None, None, scores, target_bpp=0.5)

    records = {
        str(i): {kind: record(kind, *values) for kind, values in zip(("ours", "baseline"), image, strict=True)}
        for i, image in enumerate(images)
    }
    (comparison,) = compare_at_same_size(_Measured(records), points, [PSNR, LPIPS])
    return comparison


def test_wins_and_ties_by_the_metrics_directions():
    comparison = compared(((80, 30, 0.1), (70, 29, 0.1)), ((60, 28, 0.3), (80, 29, 0.4)))
    ours, jpeg = comparison.cells
    assert (ours.codec, ours.wins, jpeg.codec) == ("CDC, 1 step", {}, "JPEG")
    assert jpeg.wins == {"psnr-rgb": 1, "lpips-alex": 1} and jpeg.compared == {"psnr-rgb": 2, "lpips-alex": 2}
    assert ours.bpp == pytest.approx(8 * 70 / 1280) and jpeg.scores["psnr-rgb"] == 29
    assert (ours.too_large, jpeg.too_large) == (0, 0) and "*" not in same_size([comparison], [PSNR, LPIPS])


@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_a_file_above_the_target_is_averaged_and_never_a_win(who):
    sizes = (81, 80) if who == "ours" else (80, 81)
    image = tuple((size, psnr, 0.1) for size, psnr in zip(sizes, (40, 20), strict=True))
    comparison = compared(image, ((80, 30, 0.1), (80, 20, 0.2)))
    ours, jpeg = comparison.cells
    assert (ours.too_large, jpeg.too_large) == ((1, 0) if who == "ours" else (0, 1))
    assert jpeg.wins == {"psnr-rgb": 1, "lpips-alex": 1}
    assert jpeg.scores["psnr-rgb"] == 20 and ours.scores["psnr-rgb"] == 35
    assert f"{(jpeg if who == 'theirs' else ours).bpp:.4f}*" in same_size([comparison], [PSNR, LPIPS])


def test_images_without_a_score_are_in_no_mean():
    comparison = compared(((80, 30, math.nan), (80, 20, 0.5)), ((80, math.inf, 0.1), (80, 20, 0.2)))
    ours, jpeg = comparison.cells
    assert jpeg.compared == {"psnr-rgb": 2, "lpips-alex": 1} and jpeg.wins == {"psnr-rgb": 2, "lpips-alex": 1}
    assert ours.scores == {"psnr-rgb": 30, "lpips-alex": 0.1}
    assert np.isfinite([*jpeg.scores.values()]).all()
