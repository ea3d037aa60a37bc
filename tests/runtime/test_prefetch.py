"""Prefetching: order, how far ahead it works, and errors."""

from __future__ import annotations

import itertools
import threading

import pytest

from cdc_jax.runtime.prefetch import in_background, in_threads, prefetch_one


def test_work_goes_ahead_by_one_item():
    begun, gate = [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 1:
            gate.set()
        return item * item

    results = prefetch_one(work, range(4))
    assert next(results) == (0, 0)
    assert gate.wait(30)  # item 1 is computed before anyone has asked for it
    assert begun == [0, 1] or begun == [0, 1, 2]
    assert list(results) == [(1, 1), (2, 4), (3, 9)]


def test_threads_keep_the_order_and_stop_at_an_error():
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return -item

    assert list(in_threads(lambda item: -item, range(20), workers=3)) == [(item, -item) for item in range(20)]
    with pytest.raises(ValueError, match="three"):
        list(in_threads(work, range(100), workers=2))
    assert max(begun) < 10


def test_items_are_made_in_the_background_and_no_more_than_may_wait():
    made, third = [], threading.Event()

    def items():
        for item in range(6):
            made.append(item)
            if item == 2:
                third.set()
            yield item

    produced = in_background(items(), lambda item: 1, most=2)
    assert next(produced) == 0
    assert third.wait(30)  # nobody has asked for it
    assert len(made) <= 5  # two wait, one is finished and not yet in the buffer
    assert list(produced) == [1, 2, 3, 4, 5]
    assert list(in_background(items(), lambda item: 100, most=2)) == list(range(6)), "one of any size may wait"


def test_the_background_s_error_comes_after_what_was_made_before():
    def items():
        yield 1
        raise ValueError("two")

    produced = in_background(items(), lambda item: 1, most=9)
    assert next(produced) == 1
    with pytest.raises(ValueError, match="two"):
        next(produced)


def test_who_stops_early_leaves_no_thread_behind():
    before = threading.active_count()
    produced = in_background(itertools.count(), lambda item: 1, most=3)
    assert next(produced) == 0
    produced.close()
    assert threading.active_count() == before
