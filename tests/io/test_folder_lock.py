"""A folder for one process at a time."""

import os
import signal
import subprocess
import sys

import pytest

from cdc_jax.errors import CdcError
from cdc_jax.io.folder_lock import exclusive
from tests.helpers.processes import user_environment

HOLD = """
import sys
from cdc_jax.io.folder_lock import exclusive
with exclusive(sys.argv[1], "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=user_environment(), **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_refused(holder, tmp_path):
    with pytest.raises(CdcError, match=f"{tmp_path} is in use .* wait for a training run to end, or name another"):
        with exclusive(tmp_path, "a training run"):
            pass
    holder.stdin.close()
    holder.wait(timeout=20)
    with exclusive(tmp_path, "a training run"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_killed_process_leaves_it_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=20)
    for _ in range(2):
        with exclusive(tmp_path, "a training run"):
            pass


def test_an_error_inside_is_not_taken_for_the_locks(tmp_path):
    with pytest.raises(OSError, match="disk full"), exclusive(tmp_path, "a training run"):
        raise OSError("disk full")


def test_where_nothing_can_be_locked(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", "gs://bucket/run"):
        with exclusive(folder, "a training run"):
            pass
    assert sorted(os.listdir(tmp_path)) == ["file"]
