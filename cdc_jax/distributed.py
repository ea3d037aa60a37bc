"""Joining the processes of one run, before anything else uses JAX.

Which way is chosen by the environment, so the command is the same everywhere:

    CDC_COORDINATOR=host:port CDC_PROCESS_COUNT=P CDC_PROCESS_INDEX=p    any machines (launch/local.sh sets these)
    CDC_DISTRIBUTED=1                                                    a TPU pod or another cluster JAX knows
    SLURM_STEP_NUM_TASKS > 1                                             a SLURM job step with one task per GPU
    none of them                                                         one process
"""

from __future__ import annotations

import os

import jax

from cdc_jax.errors import CdcError, ConfigError


def join_processes() -> None:
    """Connects this process to the others of its run, where there are others.

    Raises:
      ConfigError: the variables contradict each other.
      CdcError: this process cannot be joined with the others. (Where the first process never answers, JAX ends this
        one by itself, after five minutes.)
    """
    environment = os.environ
    coordinator = environment.get("CDC_COORDINATOR")
    arguments = {}
    if coordinator:
        try:
            arguments = {
                "coordinator_address": coordinator,
                "num_processes": int(environment["CDC_PROCESS_COUNT"]),
                "process_id": int(environment["CDC_PROCESS_INDEX"]),
                # Nothing is left to be found out; under SLURM JAX would take a process for that of one GPU.
                "cluster_detection_method": "deactivate",
            }
        except (KeyError, ValueError) as error:
            raise ConfigError(
                "with CDC_COORDINATOR, CDC_PROCESS_COUNT and CDC_PROCESS_INDEX must be whole numbers"
            ) from error
        if not 0 <= arguments["process_id"] < arguments["num_processes"]:
            raise ConfigError("CDC_PROCESS_INDEX must be at least 0 and less than CDC_PROCESS_COUNT")
    elif not _is_cluster(environment):
        return
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        where = coordinator or "cluster"
        raise CdcError(f"the processes of this run could not be joined ({where}): {reason}") from error


def leave_together() -> None:
    """Waits for the other processes of the run, for as long as it takes: who leaves early ends it for all."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("end of the run")


def _is_cluster(environment) -> bool:
    slurm_tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    return slurm_tasks > 1 or environment.get("CDC_DISTRIBUTED", "0") not in ("", "0")
