"""Joins the processes of a run, before anything else uses JAX.

The environment decides how, so that the command is the same everywhere. The first line that applies counts:

    CDC_COORDINATOR=host:port CDC_PROCESS_COUNT=P CDC_PROCESS_INDEX=p    any machines (launch/local.sh sets these)
    CDC_DISTRIBUTED=1                                                    any cluster that JAX detects
    CDC_DISTRIBUTED=0                                                    one process
    SLURM_STEP_NUM_TASKS > 1                                             a SLURM job step with one task per GPU
    a Cloud TPU with several hosts                                       a pod, which TPU VMs and GKE announce
    none of these                                                        one process
"""

from __future__ import annotations

import os
import urllib.request

import jax

from cdc_jax.errors import CdcError, ConfigError, reason_of


def join_processes() -> None:
    """Connects this process to the others of its run, if there are any.

    Raises:
      ConfigError: the variables are invalid, or JAX sees several processes that have not been joined.
      CdcError: this process cannot join the others. (If process 0 does not answer for five minutes, JAX ends this
        process itself.)
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
                # Detection is not needed, and under SLURM, JAX would expect one process per GPU.
                "cluster_detection_method": "deactivate",
            }
        except (KeyError, ValueError) as error:
            raise ConfigError(
                "With CDC_COORDINATOR, CDC_PROCESS_COUNT and CDC_PROCESS_INDEX must be whole numbers."
            ) from error
        if not 0 <= arguments["process_id"] < arguments["num_processes"]:
            raise ConfigError("CDC_PROCESS_INDEX must be at least 0 and less than CDC_PROCESS_COUNT.")
    elif not _is_cluster(environment):
        if jax.process_count() > 1 and not jax.distributed.is_initialized():
            raise ConfigError(
                f"JAX sees {jax.process_count()} processes here, which have not been joined: set CDC_DISTRIBUTED=1 for "
                "each of them (or keep JAX to this host's devices)."
            )
        return
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError, OSError) as error:
        where = coordinator or "cluster"
        raise CdcError(f"The processes of this run could not be joined ({where}): {reason_of(error)}.") from error


def leave_together() -> None:
    """Waits for the other processes of the run, without a time limit: one that leaves early would end all others."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("end of the run")


def _is_cluster(environment) -> bool:
    chosen = environment.get("CDC_DISTRIBUTED")
    if chosen:
        return chosen != "0"
    return int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 or _is_pod(environment)


def _is_pod(environment) -> bool:
    """Whether JAX uses a Cloud TPU with several hosts. Without a TPU, this sends no request and does not wait."""
    # When JAX is imported, it sets jax_platforms if it finds TPU chips, and TPU_SKIP_MDS_QUERY if it finds none.
    if "tpu" not in (jax.config.jax_platforms or "").split(","):
        return False
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if not workers and "TPU_SKIP_MDS_QUERY" not in environment:
        workers = _workers_of_this_vm(environment)
    return "," in (workers or "")


def _workers_of_this_vm(environment) -> str:
    """The hosts of a TPU VM's slice, separated by commas, from Google's metadata server; "" if it lists none."""
    server = environment.get("GCE_METADATA_IP", "metadata.google.internal")  # as JAX does
    url = f"http://{server}/computeMetadata/v1/instance/attributes/worker-network-endpoints"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""
