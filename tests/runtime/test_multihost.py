"""Which processes are joined: on pods, under SLURM, by the environment; and that a single machine is not."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import jax
import pytest

from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.runtime.multihost import join_processes

VARIABLES = (
    "CDC_COORDINATOR", "CDC_DISTRIBUTED", "SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", "TPU_PROCESS_ADDRESSES",
    "TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES",
)  # fmt: skip


@pytest.fixture
def joined(monkeypatch):
    """A single machine, and the arguments of each call that would have joined it with others."""
    calls = []
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    return calls


@pytest.fixture
def metadata(monkeypatch):
    """A fake of Google's metadata server: the TPU workers that it lists, and the requests that it got."""
    server = SimpleNamespace(workers="a,b", asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            self.send_response(200 if server.workers and self.headers["Metadata-Flavor"] == "Google" else 404)
            self.end_headers()
            self.wfile.write(server.workers.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("localhost", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=[0.01], daemon=True).start()
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{listening.server_port}")
        yield server
        listening.shutdown()


@pytest.fixture
def tpu():
    """The settings that JAX makes at its import if it finds TPU chips."""
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu,cpu")
    yield
    jax.config.update("jax_platforms", before)


def test_processes_under_slurm_keep_all_their_gpus(joined, monkeypatch):
    """JAX expects one GPU per SLURM task unless detection is turned off."""
    for name, value in {"COORDINATOR": "n1:1", "PROCESS_COUNT": "2", "PROCESS_INDEX": "1"}.items():
        monkeypatch.setenv(f"CDC_{name}", value)
    join_processes()
    where = {"coordinator_address": "n1:1", "num_processes": 2, "process_id": 1}
    assert joined == [where | {"cluster_detection_method": "deactivate"}]


@pytest.mark.parametrize("environment, count", [
    ({}, 0),
    ({"CDC_DISTRIBUTED": ""}, 0),
    ({"CDC_DISTRIBUTED": "1"}, 1),
    ({"SLURM_JOB_ID": "1"}, 0),  # an allocation, in which commands are typed
    ({"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "1"}, 0),
    ({"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "8"}, 1),
    ({"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "8", "CDC_DISTRIBUTED": "0"}, 0),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, 0),  # of a TPU that JAX does not use
])  # fmt: skip
def test_without_a_tpu_no_request_is_sent(joined, metadata, monkeypatch, environment, count):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    join_processes()
    assert joined == [{}] * count and not metadata.asked


@pytest.mark.parametrize("environment, count", [
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, 1),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, 0),
    ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, 1),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "CDC_DISTRIBUTED": "0"}, 0),
    ({"TPU_SKIP_MDS_QUERY": "1"}, 0),
])  # fmt: skip
def test_a_pod_named_in_the_environment(joined, metadata, tpu, monkeypatch, environment, count):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    join_processes()
    assert joined == [{}] * count and not metadata.asked


@pytest.mark.parametrize("workers, count", [("a,b", 1), ("u:0:10.0.0.1,u:1:10.0.0.2", 1), ("10.0.0.1", 0), ("", 0)])
def test_a_tpu_vm_is_asked_for_its_workers(joined, metadata, tpu, workers, count):
    metadata.workers = workers
    join_processes()
    assert joined == [{}] * count
    assert metadata.asked == ["/computeMetadata/v1/instance/attributes/worker-network-endpoints"]


def test_processes_that_were_not_joined_are_an_error(joined, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(ConfigError, match="4 processes .* CDC_DISTRIBUTED=1"):
        join_processes()
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)  # by the program that calls us
    join_processes()
    assert not joined


def test_a_failure_to_join_is_reported_in_one_line(joined, monkeypatch):
    def initialize():
        raise ConnectionError("no metadata\nserver")

    monkeypatch.setenv("CDC_DISTRIBUTED", "1")
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(CdcError, match=r"could not be joined \(cluster\): no metadata\.$"):
        join_processes()
