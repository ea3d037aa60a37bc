"""Joining the processes of one run, before anything else uses JAX.

Which way is chosen by the environment, so the command is the same everywhere:

    CDC_COORDINATOR=host:port CDC_PROCESS_COUNT=P CDC_PROCESS_INDEX=p    any machines (launch/local.sh sets these)
    CDC_DISTRIBUTED=1                                                    a TPU pod or another cluster JAX knows
    SLURM_STEP_NUM_TASKS > 1                                             a SLURM job step (srun sets it)
    none of them                                                         one process
"""

from __future__ import annotations

import os

import jax

from cdc_jax.errors import ConfigError


def join_processes() -> None:
    """Connects this process to the others of its run, where there are others.

    Raises:
      ConfigError: the variables contradict each other, or the other processes cannot be reached.
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
        raise ConfigError(f"the processes of this run could not be joined ({where}): {reason}") from error


def _is_cluster(environment) -> bool:
    slurm_tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    return slurm_tasks > 1 or environment.get("CDC_DISTRIBUTED", "0") not in ("", "0")
