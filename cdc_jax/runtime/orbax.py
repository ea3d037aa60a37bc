"""Orbax settings shared by checkpoints and bundles."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:
    import orbax.checkpoint as ocp


class quiet_orbax:
    """Silences Orbax's progress messages within a `with` block."""

    def __enter__(self):
        self._logger = logging.getLogger("absl")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_):
        self._logger.setLevel(self._level)


def local_checkpointer() -> ocp.StandardCheckpointer:
    """An Orbax checkpointer for this process only: it does not wait for the run's other processes."""
    import orbax.checkpoint as ocp

    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"bundle-{own}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=options)
