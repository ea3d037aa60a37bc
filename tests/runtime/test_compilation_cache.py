"""The compilation cache: its folder, when it is off, and its use by a second process."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cdc_jax.runtime import compilation_cache
from tests.helpers.processes import user_environment

HEAVY = {"jax", "numpy", "PIL", "flax", "orbax"}
PROGRAM = """
import sys
from cdc_jax.runtime import compilation_cache
folder = compilation_cache.enable()
import jax, jax.numpy as jnp
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((4, 4))).block_until_ready()
print(folder, sum(name == "/jax/compilation_cache/cache_hits" for name in events))
"""


def run(*, warnings: str = "error", **environment: str) -> list[str]:
    """Compiles in a separate process, and returns the cache's folder and the number of programs read from it."""
    clean = {k: v for k, v in user_environment().items() if k not in ("JAX_COMPILATION_CACHE_DIR",)}
    done = subprocess.run(
        [sys.executable, "-W", warnings, "-c", PROGRAM], env={**clean, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_second_process_finds_the_programs_of_the_first(tmp_path):
    environment = {"CDC_JAX_CACHE": "", "XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    folder, hits = run(**environment)
    assert folder.startswith(str(tmp_path / "cdc_jax")) and hits == "0"
    assert os.listdir(folder)
    assert int(run(**environment)[1]) >= 1


def test_a_half_written_program_is_compiled_once_more_and_kept(tmp_path):
    environment = {"CDC_JAX_CACHE": str(tmp_path)}
    folder, _ = run(**environment)
    for entry in Path(folder).glob("*-cache"):
        entry.write_bytes(entry.read_bytes()[:100])
    assert run(warnings="default", **environment)[1] == "0"
    assert int(run(**environment)[1]) >= 1


def test_several_processes_share_a_folder(tmp_path):
    """A program that another process is just writing is compiled; whoever comes later finds it."""
    environment = {"CDC_JAX_CACHE": str(tmp_path), "warnings": "default"}
    with ThreadPoolExecutor(4) as pool:
        assert len({folder for folder, _ in pool.map(lambda _: run(**environment), range(4))}) == 1
    assert int(run(**environment)[1]) >= 1


def test_without_a_folder_that_can_be_written_nothing_is_kept(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert run(CDC_JAX_CACHE=str(tmp_path / "file")) == ["None", "0"]


def test_switches(monkeypatch, tmp_path):
    monkeypatch.setenv("CDC_JAX_CACHE", "off")
    assert compilation_cache.cache_folder() is None and compilation_cache.enable() is None
    monkeypatch.setenv("CDC_JAX_CACHE", str(tmp_path))
    assert compilation_cache.cache_folder().parent == tmp_path
    monkeypatch.delenv("CDC_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert compilation_cache.cache_folder().parent == tmp_path / "cdc_jax"


def test_another_processor_has_another_folder(monkeypatch):
    monkeypatch.setenv("CDC_JAX_CACHE", "")
    ours = compilation_cache.cache_folder()
    monkeypatch.setattr(compilation_cache.platform, "machine", lambda: "another")
    assert compilation_cache.cache_folder().parent == ours.parent
    assert compilation_cache.cache_folder() != ours


def test_the_oldest_programs_are_deleted_first(tmp_path):
    for age, name in enumerate("abc"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    compilation_cache.prune(tmp_path, 20)
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]
    compilation_cache.prune(tmp_path / "absent", 20)


@pytest.mark.parametrize("command", [["info", "FILE"], ["--help"], ["--version"]])
def test_commands_without_a_model_do_not_import_jax(command, tmp_path):
    from cdc_jax.io import cdc_file

    path = tmp_path / "image.cdc"
    path.write_bytes(cdc_file.pack(b"1234", 5, 7, b"stream"))
    words = [str(path) if word == "FILE" else word for word in command]
    code = f"import sys; from cdc_jax.cli import main; main({words!r}); print(sorted({{*sys.modules}} & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], env=user_environment(), capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
