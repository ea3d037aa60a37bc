"""Settings of orbax that checkpoints and bundles share."""

from __future__ import annotations

import logging

import jax


class quiet_orbax:
    """Keeps orbax's progress messages off the screen within a `with` block."""

    def __enter__(self):
        self._logger = logging.getLogger("absl")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_):
        self._logger.setLevel(self._level)


def local_checkpointer():
    """An orbax checkpointer of this process alone. It does not wait for the run's others, which save nothing."""
    import orbax.checkpoint as ocp

    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"bundle-{own}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=options)
