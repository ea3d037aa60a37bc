"""Averages and BD-rates: known values, and the reasons for refusals."""

import re

import numpy as np
import pytest

pytest.importorskip("bjontegaard", reason="BD-rates need bjontegaard: pip install '.[eval]'")

from cdc_jax.evaluation.curves import Curve, bd_rate, relative_overlap
from cdc_jax.evaluation.scoring import MetricFacts

PSNR = MetricFacts("psnr-rgb", "PSNR (dB)", True)
LPIPS = MetricFacts("lpips-alex", "LPIPS", False)


def curve(name, bpp, scores, metric=PSNR):
    return Curve(name, "ours", [""] * len(bpp), list(bpp), {metric.name: list(scores)})


QUALITY = np.array([28.0, 31.0, 33.0, 36.0, 38.0])
RATE = np.array([0.1, 0.2, 0.35, 0.7, 1.1])


def test_a_fifth_fewer_bits_at_the_same_quality():
    result = bd_rate(curve("a", 0.8 * RATE, QUALITY), curve("b", RATE, QUALITY), PSNR)
    assert result.percent == pytest.approx(-20, abs=1e-9)
    assert (result.curve, result.anchor, result.overlap, result.reason) == ("a", "b", 1.0, "")


def test_straight_lines_have_a_known_integral():
    # log10 of the rate rises linearly with quality, at two slopes: the mean difference over 30 … 39 is at 34.5.
    anchor_quality, quality = np.linspace(29, 39, 5), np.linspace(30, 40, 6)
    anchor = curve("anchor", 10 ** (-1 + 0.10 * (anchor_quality - 30)), anchor_quality)
    test = curve("test", 10 ** (-1.2 + 0.12 * (quality - 30)), quality)
    expected = 100 * (10 ** (-0.2 + 0.02 * 4.5) - 1)
    assert bd_rate(test, anchor, PSNR).percent == pytest.approx(expected, abs=1e-6)


def test_lower_is_better_metrics_are_negated_and_points_need_no_order():
    shuffled = [3, 0, 4, 1, 2]
    distance = 1 / QUALITY
    anchor = curve("b", RATE, distance, LPIPS)
    test = curve("a", 1.5 * RATE[shuffled], distance[shuffled], LPIPS)
    assert bd_rate(test, anchor, LPIPS).percent == pytest.approx(50, abs=1e-9)


@pytest.mark.parametrize(
    ("bpp", "scores", "words"),
    [
        (RATE, QUALITY + 5, r"share 33% of their quality range, less than 75%"),
        (RATE, QUALITY + 50, "share 0%"),
        (RATE[:2], QUALITY[:2], "2 of the 3 points"),
        (RATE, [28, 31, 30, 36, 38], "does not rise"),
        (RATE, [28, np.nan, np.nan, np.nan, 38], "2 of the 3 points"),
    ],
)
def test_refusals_say_why(bpp, scores, words):
    result = bd_rate(curve("a", bpp, scores), curve("b", RATE, QUALITY), PSNR)
    assert result.percent is None
    assert re.search(words, result.reason), result.reason


def test_overlap_is_of_the_union():
    assert relative_overlap([0, 3], [0, 4]) == 0.75
    assert relative_overlap([0, 1], [2, 3]) == 0 == relative_overlap([1, 1], [1, 1])


def test_averages_are_means_over_images(finished):
    evaluation, _ = finished
    for c in evaluation.curves:
        for i, slug in enumerate(c.slugs):
            records = [by_slug[slug] for by_slug in evaluation.measured.records.values()]
            assert c.bpp[i] == pytest.approx(np.mean([8 * r.file_bytes / (r.width * r.height) for r in records]))
            assert c.scores["psnr-rgb"][i] == pytest.approx(np.mean([r.scores["psnr-rgb"] for r in records]))
            scores = [record.scores["psnr-rgb"] for record in records]
            assert c.intervals["psnr-rgb"][i] == pytest.approx(1.96 * np.std(scores, ddof=1) / len(scores) ** 0.5)
        assert c.bpp == sorted(c.bpp)
