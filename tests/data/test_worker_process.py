"""Worker processes ignore the signals that stop a run, and do not outlive the trainer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from cdc_jax.data.pipeline import open_batches
from cdc_jax.errors import CdcError
from tests.helpers.processes import fast_environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX'")

# Handles SIGTERM and SIGINT like the trainer. For each input line, it reads a batch and prints the worker's process id.
_READING = """
import multiprocessing, signal, sys
from cdc_jax.training.config import default_config
from cdc_jax.data.pipeline import open_batches

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = default_config()
    config.data.update({"source": "folder", "path": sys.argv[1], "crop": 64, "batch_size": 2, "workers": 1})
    with open_batches(config, process_index=0, process_count=1, first_step=0) as batches:
        for _ in sys.stdin:
            next(batches)
            print(multiprocessing.active_children()[0].pid, flush=True)
"""


def is_alive(process: int) -> bool:
    """Whether the process is running; a zombie is not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return state.strip()[:1] not in ("", "Z")


def test_a_worker_lives_as_long_as_the_trainer(folder, tmp_path):
    (tmp_path / "read.py").write_text(_READING)
    command = [sys.executable, tmp_path / "read.py", folder]
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, env=fast_environment(), text=True, start_new_session=True, **pipes) as trainer:

        def read_batch() -> int:
            print(file=trainer.stdin, flush=True)
            return int(trainer.stdout.readline())

        try:
            worker = read_batch()
            for number in (signal.SIGTERM, signal.SIGINT):
                os.killpg(trainer.pid, number)
                time.sleep(0.5)
                assert {read_batch() for _ in range(50)} == {worker}  # far more than are prefetched
        finally:
            trainer.kill()
    deadline = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(worker)


def test_a_worker_that_dies_is_reported_in_one_sentence(data_config):
    with open_batches(data_config(workers=1), process_index=0, process_count=1, first_step=0) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(CdcError, match=r"images was ended with exit code -9 .+data\.workers"):
            for _ in range(1000):
                next(batches)
