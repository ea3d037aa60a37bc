"""The estimated time of a program: each term over its own peak, and how the terms change with the program and chips."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.aot.collectives import Collective
from cdc_jax.aot.compile import CompileStats
from cdc_jax.aot.roofline import PEAKS, Peaks, sent_bytes, step_time
from cdc_jax.aot.topology import AVAILABLE_HBM_GIB

CHIP = Peaks(flops=100e12, memory_bytes=1e12, link_bytes=100e9)
AMOUNTS = st.floats(1, 1e15)


def stats(**changes) -> CompileStats:
    """A program of 10, 20 and 30 ms on 2 of `CHIP`."""
    reduced = (Collective("all-reduce", 1, 1, int(3e9)),)
    known = CompileStats("train_step", "v5e:1x2", 2, 1, 0, 0, 0, 0, 0, 3e11, 1e12, 1.0, 3e11, 20e9, reduced, 1.0)
    return dataclasses.replace(known, **changes)


def test_each_term_is_an_amount_over_its_peak():
    time = step_time(stats(), CHIP)
    assert time == pytest.approx((0.010, 0.020, 0.030))
    assert time.overlapped == pytest.approx(0.030) and time.one_after_another == pytest.approx(0.060)


@given(AMOUNTS, AMOUNTS, AMOUNTS)
def test_the_bounds_enclose_each_other(flops, accessed, peak):
    time = step_time(stats(pass_flops=flops, compiler_bytes=accessed), CHIP._replace(memory_bytes=peak))
    assert max(time) == time.overlapped <= time.one_after_another <= 3 * time.overlapped


@given(st.floats(1.1, 10))
def test_a_faster_chip_shortens_its_own_term_only(factor):
    before = step_time(stats(), CHIP)
    for name, term in zip(Peaks._fields, ("compute", "memory", "network"), strict=True):
        after = step_time(stats(), CHIP._replace(**{name: factor * getattr(CHIP, name)}))
        assert getattr(after, term) == pytest.approx(getattr(before, term) / factor)
        assert after._replace(**{term: 0}) == before._replace(**{term: 0})


def test_twice_the_chips_halve_the_same_work():
    """The same images on twice the chips: half the products and accesses for each chip, and as much to reduce."""
    one, half = stats(), stats(chips=4, pass_flops=stats().pass_flops / 2, compiler_bytes=stats().compiler_bytes / 2)
    before, after = step_time(one, CHIP), step_time(half, CHIP)
    assert (after.compute, after.memory) == pytest.approx((before.compute / 2, before.memory / 2))
    assert after.network == pytest.approx(before.network * 1.5), "2 × 3/4 instead of 2 × 1/2 of the bytes"


def test_loops_are_in_full():
    assert step_time(stats(loop_factor=65.0), CHIP).memory == pytest.approx(65 * 0.020)


def test_an_all_reduce_sends_twice_its_share():
    reduced = [Collective("all-reduce", 2, 5, 1000)]
    assert sent_bytes(reduced, 1) == 0, "alone, a chip sends nothing"
    assert [sent_bytes(reduced, chips) for chips in (2, 4, 8)] == [1000, 1500, 1750]
    assert 1990 < sent_bytes(reduced, 256) < 2000
    assert sent_bytes([Collective("all-gather", 1, 1, 1000)], 4) == 750
    assert sent_bytes([], 8) == 0


def test_the_table_is_of_chips_that_can_be_compiled_for():
    assert PEAKS.keys() <= AVAILABLE_HBM_GIB.keys()
    assert {"v5e", "v5p", "v6e"} <= PEAKS.keys()
    for chip in PEAKS.values():
        assert 1e14 < chip.flops < 1e15 and 5e11 < chip.memory_bytes < 5e12 and 1e11 < chip.link_bytes < 1e12
        assert 100 < chip.flops / chip.memory_bytes < 1000, "FLOPs per byte; the units are those of the others"
