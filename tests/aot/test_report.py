"""The printed report: whether a program fits, and the extrapolated batch size, marked as such."""

import dataclasses

import pytest

from cdc_jax.aot.collectives import Collective
from cdc_jax.aot.compile import CompileStats
from cdc_jax.aot.report import describe, describe_time, extrapolate, fits
from cdc_jax.aot.topology import GIB, Topology

CHIP = Topology("v5e:2x4", [None] * 8, 16 * GIB)


def stats(batch, temporary_gib, **changes):
    known = CompileStats("train_step", "v5e:2x4", 8, batch, 2 * GIB, 2 * GIB, 2 * GIB, int(temporary_gib * GIB), 0,
                    2e12, 5e12, 10.0, 1e12, GIB, (Collective("all-reduce", 1, 466, GIB // 4),), 60.0)  # fmt: skip
    return dataclasses.replace(known, **changes)


def test_a_program_that_fits():
    text = describe(stats(4, 3), CHIP, False)
    assert "4 per chip on v5e:2x4 (8 chips, batch 32), compiled in 60 s" in text
    assert "fits: 5.00 GiB of 16.00 GiB available (31%)" in text
    assert "all-reduce × 1: 466 arrays, 0.25 GiB" in text
    assert "2,000.0 GFLOP" in text and "1,000.0" in text and "passes: 5,000.0" in text
    assert "accessed     10.00 GiB" in text


def test_the_time_is_marked_as_an_estimate():
    one = stats(4, 3, pass_flops=197e9, compiler_bytes=819e6 * 0.2, collectives=())  # v5e: 1 ms, 10 × 0.2 ms
    lines = describe_time(one, 3_600_000).splitlines()
    assert (
        lines[0].split()
        == "ESTIMATE 2.00 ms if these overlap, 3.00 ms if not: products 1.00 ms, memory 2.00 ms, \
links 0.00 ms".split()
    )
    assert "16,000 or 10,667 images/s" in lines[1], "32 images"
    assert "3,600,000 steps: 2.0 or 3.0 hours" in lines[1]
    assert "not measured" in lines[2]
    assert "hours" not in describe_time(one)


def test_no_time_is_estimated_for_what_cannot_run():
    assert describe_time(stats(1, 0, refusal="RESOURCE_EXHAUSTED: Ran out of memory")) is None
    assert describe_time(stats(1, 1, topology="v3:2x2")) is None, "its peaks are not in the table"


def test_a_program_that_does_not_fit_is_flagged():
    assert not fits(stats(1, 15), CHIP)
    assert "DOES NOT FIT: 17.00 GiB of 16.00 GiB" in describe(stats(1, 15), CHIP, True)
    refused = stats(1, 0, refusal="RESOURCE_EXHAUSTED: Ran out of memory")
    assert not fits(refused, CHIP) and "DOES NOT FIT: RESOURCE_EXHAUSTED" in describe(refused, CHIP, True)


def test_an_unknown_chip_is_not_judged():
    chip = CHIP._replace(available_bytes=None)
    assert fits(stats(1, 500), chip) and "not known" in describe(stats(1, 500), chip, True)
    assert extrapolate([stats(1, 1), stats(2, 2)], chip) is None


def test_the_largest_batch_is_extrapolated_and_marked():
    line = extrapolate([stats(4, 4.5), stats(1, 1.5)], CHIP)  # needed: 2.5 + 1 per image
    assert "2.50 GiB + 1.00 GiB per image" in line
    assert "is 13, with 15.50 GiB" in line
    assert "extrapolated from batches 1 and 4, not compiled" in line


def test_a_refused_batch_bounds_the_extrapolation():
    line = extrapolate([stats(1, 1.5), stats(4, 4.5), stats(8, 0, refusal="no")], CHIP)
    assert "is 7, with" in line


@pytest.mark.parametrize("known", [[], [stats(1, 1)], [stats(1, 1), stats(1, 1)], [stats(1, 2), stats(2, 2)]])
def test_nothing_is_extrapolated_from_too_little(known):
    assert extrapolate(known, CHIP) is None


def test_gpus_get_neither_passes_nor_an_estimate():
    """Their compiler counts nothing, and their peaks are not in the table."""
    gpu = Topology("h100:8", [None] * 8, 59 * GIB, platform="cuda")
    one = stats(4, 3, topology="h100:8", compiler_flops=0.0, compiler_bytes=0.0)
    text = describe(one, gpu, False)
    assert "2,000.0 GFLOP" in text and "5.00 GiB of 59.00 GiB" in text
    assert "passes" not in text and "accessed" not in text and "own count" not in text
    assert describe_time(one) is None
