"""The log of a run, where the run's folder is not the place that it is written in."""

from __future__ import annotations

from cdc_jax.files import is_remote
from cdc_jax.run_log import RunLog


def test_what_is_written_elsewhere_is_published_and_taken_up_again(tmp_path):
    """As with a workdir in an object store, which knows neither append nor rename."""
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


def test_other_processes_write_nothing(tmp_path):
    log = RunLog(tmp_path, active=False)
    log.drop_after(0)
    log.write(1, {"loss": 2.0})
    log.close()
    assert list(tmp_path.iterdir()) == []
    assert log.summary() == {"loss": "2"}


def test_what_is_remote(tmp_path):
    assert is_remote("gs://bucket/run") and not is_remote(tmp_path) and not is_remote("runs/demo")
