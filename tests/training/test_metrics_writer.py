"""The log of a run, in particular of one whose folder is in an object store."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest

from cdc_jax.errors import CdcError
from cdc_jax.io.files import is_remote
from cdc_jax.training.metrics_writer import RunLog
from tests.helpers.object_store import unreachable_store
from tests.helpers.processes import user_environment


def test_a_log_written_elsewhere_is_published_and_continued(tmp_path):
    """As with a workdir in an object store, which supports neither append nor rename."""
    workdir, first, second = tmp_path / "workdir", tmp_path / "first", tmp_path / "second"
    for folder in (workdir, first, second):
        folder.mkdir()
    log = RunLog(workdir, local=first)
    log.drop_after(0)
    log.write(1, {"loss": 2.0})
    assert not (workdir / "metrics.jsonl").exists()
    log.publish()
    log.write(2, {"loss": 1.0})
    assert RunLog(workdir, local=second).read() == [{"step": 1, "loss": 2.0}]
    log.close()
    again = RunLog(workdir, local=second)
    again.drop_after(1)
    assert again.read() == [{"step": 1, "loss": 2.0}]


def test_an_object_store_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    log = RunLog(tmp_path / "workdir", local=tmp_path)
    log.drop_after(-1)
    log.write(1, {"loss": 2.0})
    with unreachable_store(monkeypatch, "write_bytes"), pytest.raises(CdcError, match=r"workdir: HTTP 503\.$"):
        log.publish()
    with unreachable_store(monkeypatch, "write_text"), pytest.raises(CdcError, match=r"HTTP 503\.$"):
        log.add_text("batch", ["a.png"])
    with unreachable_store(monkeypatch, "is_file"), pytest.raises(CdcError, match=r"workdir: HTTP 503\.$"):
        RunLog(tmp_path / "workdir", local=tmp_path)


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    log = RunLog(tmp_path)
    monkeypatch.setattr(log, "read", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        log.drop_after(0)


def test_a_failed_run_raises_its_own_error_and_publishes_its_log(tmp_path, monkeypatch):
    def run():
        with RunLog(tmp_path / "workdir", local=tmp_path) as log:
            log.write(1, {"loss": 2.0})
            raise CdcError("loss is nan")

    with pytest.raises(CdcError, match="loss is nan"):
        run()
    assert (tmp_path / "workdir" / "metrics.jsonl").exists()
    with unreachable_store(monkeypatch, "write_bytes"), pytest.raises(CdcError, match="loss is nan"):
        run()


def test_other_processes_write_nothing(tmp_path):
    log = RunLog(tmp_path, active=False)
    log.drop_after(0)
    log.write(1, {"loss": 2.0})
    log.close()
    assert list(tmp_path.iterdir()) == []
    assert log.summary() == {"loss": "2"}


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX'")
@pytest.mark.parametrize("images", [False, True])
def test_a_full_disk_is_one_line_and_nothing_hangs(images, tmp_path):
    """In a separate process with a limit on the size of files."""
    program = f"""
import resource, signal
import numpy as np
from cdc_jax.errors import CdcError
from cdc_jax.training.metrics_writer import RunLog
log = RunLog({str(tmp_path)!r})
log.drop_after(-1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    for step in range(1000):
        log.write(step, {{"loss": 1.0}})
        if {images}:
            log.write_images(step, {{"p": np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)}})
        log.publish()
except CdcError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=user_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith(f"Cannot write the log in {tmp_path}: File too large."), done.stderr


def test_a_restart_before_the_first_checkpoint_starts_over(tmp_path):
    for value in (1.0, 2.0):
        log = RunLog(tmp_path)
        log.drop_after(-1)
        log.write(0, {"loss": value})
        log.close()
    assert RunLog(tmp_path).read() == [{"step": 0, "loss": 2.0}]


def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    log = RunLog(tmp_path)
    log.drop_after(4)
    log.write(5, {"loss": 2.0})
    log.write_images(5, {"p": np.zeros((4, 6, 3), np.uint8)})
    log.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, events = path.read_bytes(), []
    while data:  # TFRecord: length, checksum of the length, data, checksum of the data
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    assert [event.step for event in events] == [0, 5, 5, 5]
    assert [value.tag for event in events for value in event.summary.value] == ["loss", "p"]


def test_lists_are_files_of_their_own(tmp_path):
    path = RunLog(tmp_path, active=False).add_text("batch", ["a.png", "b.png"])
    assert path.read_text() == "a.png\nb.png\n" and path.parent == RunLog(tmp_path)._workdir


def test_what_is_remote(tmp_path):
    assert is_remote("gs://bucket/run") and not is_remote(tmp_path) and not is_remote("runs/demo")
