"""Keeps the data of a run's processes consistent: their images, counters and corrupt records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from cdc_jax.data.pipeline import Batches, open_batches
from cdc_jax.errors import CdcError


def open_shared_batches(config: ml_collections.ConfigDict, first_step: int, state: Mapping[str, Any] | None) -> Batches:
    """Calls `open_batches` for this process. An error on one process becomes an error on all of them.

    Args:
      config: the run's settings.
      first_step: the step of the first batch.
      state: the data's state in the checkpoint that the run resumes from; None for a new run.

    Raises:
      ConfigError, CheckpointError, CdcError: see `open_batches`; or processes have different images.
    """
    share = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    batches, own_error = None, None
    try:
        batches = open_batches(config, **share, first_step=first_step, state=state)
    except CdcError as error:
        own_error = error
    others_error = _disagreement(batches) if jax.process_count() > 1 else None
    if own_error or others_error:
        if batches is not None:
            batches.close()
        raise own_error or others_error
    return batches


def _disagreement(batches: Batches | None) -> CdcError | None:
    """An error if the processes have not all opened the same images, else None. Every process has to call it."""
    mine = np.zeros(3, np.uint32)  # JAX has no 64-bit integers by default
    if batches is not None:
        names = bytes.fromhex(batches.identity.names)
        mine[:] = batches.identity.records, *np.frombuffer(names, ">u4")
    rows = multihost_utils.process_allgather(mine)
    counts = [int(row[0]) for row in rows]
    if 0 in counts:
        return CdcError(f"Process {counts.index(0)} cannot open its training images; its own message explains why.")
    other = next((process for process, row in enumerate(rows) if not np.array_equal(row, rows[0])), None)
    if other is None:
        return None
    return CdcError(
        f"Processes 0 and {other} have different training images ({counts[0]} and {counts[other]} of them; names "
        "are compared as well): give every process the same ones (data.path, data.name, data.list_file)."
    )


def shared_state(batches: Batches) -> dict[str, Any]:
    """The state of the data for a checkpoint: this process's, with the counters and corrupt records of all processes.

    Every process has to call it; all get the same state. Raises CdcError if too many records are corrupt.
    """
    state = batches.state()
    if jax.process_count() > 1:
        names = sorted(state["counters"])
        counted = multihost_utils.process_allgather(np.array([state["counters"][name] for name in names]))
        state["counters"] = dict(zip(names, counted.sum(axis=0).tolist(), strict=True))
        most = int(multihost_utils.process_allgather(np.array(len(state["corrupt"]))).max())
        rows = np.full(most, -1)
        rows[: len(state["corrupt"])] = state["corrupt"]
        state["corrupt"] = sorted({int(n) for n in multihost_utils.process_allgather(rows).ravel() if n >= 0})
        batches.note_corrupt(state["corrupt"])
    return state
