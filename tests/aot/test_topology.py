"""libtpu and its lock: who holds it, and what is reported to a user."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from cdc_jax.aot import topology
from cdc_jax.errors import CdcError, ConfigError

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libtpu is for Linux")
def test_the_lock_names_its_holder_and_a_stale_one_is_recognized(tmp_path):
    path = str(tmp_path / "lock")
    assert topology.lock_holder(path) is None, "no file"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert topology.lock_holder(path) == process.pid
        line = topology.explain_lock(path)
        assert f"Process {process.pid}" in line and "wait" in line and "\n" not in line
        process.kill()
    assert os.path.exists(path), "the file outlives its lock"
    assert topology.lock_holder(path) is None
    line = topology.explain_lock(path)
    assert "stale" in line and f"rm -f {path}" in line and "\n" not in line


def test_without_libtpu_the_message_names_the_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(CdcError, match=r"pip install '\.\[tpu\]'"):
        topology.open_topology("v5e:2x2")


@pytest.mark.parametrize("name", ["v5e", "v5litepod-8", "v5e:", "v5e:2*2", ""])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(ConfigError, match="v5e:16x16"):
        topology.open_topology(name)
