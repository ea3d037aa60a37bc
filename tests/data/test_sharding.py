"""The global order, and the positions that each process reads."""

from __future__ import annotations

import pytest

from cdc_jax.data.sharding import GlobalOrder, LocalPositions


@pytest.mark.parametrize("records", [1, 2, 7, 100])
def test_each_epoch_holds_every_record_once(records):
    order = GlobalOrder(records, seed=5)
    for epoch in range(4):
        assert sorted(order[epoch * records + i] for i in range(records)) == list(range(records))


def test_epochs_and_seeds_differ():
    first, other = GlobalOrder(50, seed=0), GlobalOrder(50, seed=10)
    epochs = [tuple(order[50 * epoch + i] for i in range(50)) for order in (first, other) for epoch in range(3)]
    assert len(set(epochs)) == 6
    assert epochs[0] != tuple(range(50))


def test_far_positions_are_reached_at_once():
    order = GlobalOrder(1_281_167, seed=0)
    assert 0 <= order[700_000 * 4096] < 1_281_167


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_processes_share_each_batch_by_rows(process_count):
    parts = [LocalPositions(8, p, process_count, first_step=3) for p in range(process_count)]
    rows = 8 // process_count
    for step in range(3):
        positions = [part[step * rows + row] for part in parts for row in range(rows)]
        assert positions == list(range(8 * (3 + step), 8 * (4 + step)))
