"""Two processes of one run have the same images, the counters of both, and the errors of both."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cdc_jax.data.multihost import open_shared_batches, shared_state
from cdc_jax.data.pipeline import open_batches
from cdc_jax.errors import CdcError
from tests.data.conftest import corrupt_images, save_image
from tests.helpers.processes import fast_environment, free_address

# Opens each of the folders in turn, reads two batches, and prints the state of the data, or the error.
_OPENING = """
import json, sys
from cdc_jax.runtime.multihost import join_processes, leave_together
from cdc_jax.training.config import default_config
from cdc_jax.errors import CdcError
from cdc_jax.data.multihost import open_shared_batches, shared_state

join_processes()
printed = []
for path in sys.argv[1:]:
    config = default_config()
    settings = {"source": "folder", "path": path, "crop": 64, "batch_size": 4, "max_corrupt_fraction": 0.5}
    config.data.update(settings)
    try:
        with open_shared_batches(config, 0, None) as batches:
            next(batches), next(batches)
            printed.append(shared_state(batches))
    except CdcError as error:
        printed.append(str(error))
print(json.dumps(printed))
leave_together()
"""


def start(index: int, address: str, *folders) -> subprocess.Popen:
    variables = {"CDC_COORDINATOR": address, "CDC_PROCESS_COUNT": "2", "CDC_PROCESS_INDEX": str(index)}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", _OPENING, *map(str, folders)]
    return subprocess.Popen(command, env=fast_environment(**variables, JAX_PLATFORMS="cpu"), text=True, **pipes)


def test_two_processes_agree_about_their_images(folder, data_config, tmp_path):
    corrupt_images(folder)
    save_image(tmp_path / "other" / "a.png", 1)
    address = free_address()
    folders = [(folder, folder, folder), (folder, tmp_path / "other", tmp_path / "missing")]
    processes = [start(index, address, *paths) for index, paths in enumerate(folders)]
    try:
        output = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], [errors[-2000:] for _, errors in output]
    (state, other, missing), (*same, own) = [json.loads(printed.splitlines()[-1]) for printed, _ in output]

    assert [state, other] == same
    assert state["counters"]["read"] == 8 + state["counters"]["corrupt"]
    with open_batches(data_config(max_corrupt_fraction=0.5), process_index=0, process_count=1, first_step=2) as batches:
        assert state["images"] == batches.state()["images"]
    assert "Processes 0 and 1 have different training images (12 and 1 of them" in other
    assert "Process 1 cannot open its training images" in missing and "is not a folder" in own


def test_a_single_process_does_not_communicate(data_config):
    with open_shared_batches(data_config(), 0, None) as batches:
        assert shared_state(batches) == batches.state()
    with pytest.raises(CdcError, match="not a folder"):
        open_shared_batches(data_config(path="nowhere"), 0, None)
