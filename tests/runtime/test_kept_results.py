"""Results on disk: what a key depends on, damaged entries, folders that cannot be written."""

from __future__ import annotations

import os

import pytest

from cdc_jax.runtime import kept_results


@pytest.fixture
def folder(tmp_path):
    kept_results.enable(tmp_path)
    yield tmp_path
    kept_results.enable(None)


def entries(folder):
    return sorted(folder.glob(f"*{kept_results.SUFFIX}"))


def test_a_result_is_read_as_it_was_written(folder):
    assert kept_results.read("sum", "1 + 1") is None
    kept_results.write("sum", "1 + 1", b"2")
    assert kept_results.read("sum", "1 + 1") == b"2"
    assert kept_results.read("sum", "1 + 2") is None
    kept_results.write("sum", "1 + 1", b"two")
    assert kept_results.read("sum", "1 + 1") == b"two"
    assert [path.name.partition("-")[0] for path in entries(folder)] == ["sum"]


@pytest.mark.parametrize("size", [0, 10, 32, 40])
def test_a_damaged_entry_counts_as_missing(folder, size):
    kept_results.write("text", "key", b"a result of some length")
    [path] = entries(folder)
    path.write_bytes(path.read_bytes()[:size])
    assert kept_results.read("text", "key") is None
    kept_results.write("text", "key", b"again")
    assert kept_results.read("text", "key") == b"again"


def test_a_changed_byte_is_found(folder):
    kept_results.write("text", "key", bytes(100))
    [path] = entries(folder)
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    assert kept_results.read("text", "key") is None


def test_results_are_not_shared_between_environments(folder, monkeypatch):
    kept_results.write("text", "key", b"a result")
    for change in (
        lambda: monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true"),
        lambda: monkeypatch.setattr(kept_results.metadata, "version", lambda name: "0"),
        lambda: monkeypatch.setattr(kept_results, "_processors", lambda: 1000),
        lambda: monkeypatch.setattr(kept_results, "_instructions", lambda: "those of another processor"),
        lambda: monkeypatch.setattr(kept_results, "_PACKAGE", folder),  # another source
    ):
        change()
        kept_results.enable(folder)
        assert kept_results.read("text", "key") is None
        monkeypatch.undo()
        kept_results.enable(folder)
        assert kept_results.read("text", "key") == b"a result"


def test_nothing_is_kept_unless_enabled(tmp_path):
    assert not kept_results.is_enabled()
    kept_results.write("text", "key", b"a result")
    assert kept_results.read("text", "key") is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    kept_results.enable(tmp_path / "file")
    try:
        kept_results.write("text", "key", b"a result")
        assert kept_results.read("text", "key") is None
    finally:
        kept_results.enable(None)
    assert os.listdir(tmp_path) == ["file"]
