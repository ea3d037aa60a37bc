"""libtpu: its lock, and the errors without it."""

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
def test_the_holder_of_a_lock_is_found(tmp_path):
    from tests.aot.lock import lock_holder

    path = str(tmp_path / "lock")
    assert lock_holder(path) is None, "no file"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert lock_holder(path) == process.pid
        process.kill()
    assert os.path.exists(path), "the file outlives its lock"
    assert lock_holder(path) is None


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
