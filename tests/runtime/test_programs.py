"""Kept programs: a second command neither traces nor compiles, and a damaged program is compiled again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.codec.bundle import save_bundle
from cdc_jax.io.images import read_image, write_image
from cdc_jax.runtime import kept_results
from tests.helpers.compact import COMPACT, compact_weights
from tests.helpers.processes import FAST_COMPILE_FLAGS, user_environment

# Runs a command; prints how many programs it traced and compiled, and which of these packages it imported.
COMMAND = """
import sys
import jax
counts = {"jaxpr_trace_duration": 0, "backend_compile_duration": 0}
def count(name, *_, **__):
    last = name.rpartition("/")[-1]
    counts[last] = counts.get(last, 0) + 1
jax.monitoring.register_event_duration_secs_listener(count)
from cdc_jax.cli import main
code = main(sys.argv[1:])
print(counts["jaxpr_trace_duration"], counts["backend_compile_duration"], *sorted({"flax", "orbax"} & set(sys.modules)))
sys.exit(code)
"""


def cdc(folder: Path, *words: str | Path, **environment: str) -> list[str]:
    """Runs `cdc` with its cache in a folder; returns what `COMMAND` prints."""
    clean = {name: value for name, value in user_environment().items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment = {"CDC_JAX_CACHE": str(folder), "XLA_FLAGS": FAST_COMPILE_FLAGS, **environment}
    command = [sys.executable, "-c", COMMAND, *map(str, words), "--quiet", "--force"]
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def kept(folder: Path) -> dict[str, Path]:
    """The kept results by name."""
    return {path.name.partition("-")[0]: path for path in folder.glob(f"*/*{kept_results.SUFFIX}")}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A tiny compact model with its weights in float16, as the shipped one's are."""
    folder = tmp_path_factory.mktemp("half") / "bundle"
    save_bundle(folder, COMPACT, compact_weights(COMPACT), provenance="random weights, for tests", half=True)
    return folder


@pytest.fixture
def photo(tmp_path, photograph):
    write_image(tmp_path / "photo.png", photograph[:100, :70])
    return tmp_path / "photo.png"


def test_the_second_command_neither_traces_nor_compiles_nor_imports_flax(tmp_path, bundle, photo):
    cache, data, image = tmp_path / "cache", tmp_path / "photo.cdc", tmp_path / "out.png"
    compress = "compress", photo, "-o", data, "--model", bundle
    decompress = "decompress", data, "-o", image, "--model", bundle
    traced, compiled, *_ = cdc(cache, *compress)
    assert int(traced) >= 1 and compiled == "1"
    assert set(kept(cache)) == {"shapes", "encode_latents"}  # nothing that only decoding needs
    assert cdc(cache, *decompress)[1] == "1"
    assert set(kept(cache)) == {"shapes", "encode_latents", "synthesize"}
    first = data.read_bytes(), read_image(image)
    assert cdc(cache, *compress) == ["0", "0"]
    assert cdc(cache, *decompress) == ["0", "0"]
    assert data.read_bytes() == first[0]
    np.testing.assert_array_equal(read_image(image), first[1])
    without = cdc(tmp_path / "none", *decompress, CDC_JAX_CACHE="off")
    assert int(without[1]) >= 1 and not (tmp_path / "none").exists()
    np.testing.assert_array_equal(read_image(image), first[1])


def truncate(entry: bytes) -> bytes:
    return entry[:1000]


def make_unusable(entry: bytes) -> bytes:
    """An entry with a valid checksum that is no program, as if a library had changed its format."""
    return entry if entry[32:].startswith(b"{") else hashlib.sha256(entry).digest() + entry


@pytest.mark.parametrize("damage", [truncate, make_unusable])
def test_damaged_programs_are_compiled_again(tmp_path, bundle, photo, damage):
    cache, data = tmp_path / "cache", tmp_path / "photo.cdc"
    compress = "compress", photo, "-o", data, "--model", bundle
    cdc(cache, *compress)
    expected = data.read_bytes()
    for path in kept(cache).values():
        path.write_bytes(damage(path.read_bytes()))
    assert cdc(cache, *compress)[1] == "1"
    assert data.read_bytes() == expected
    assert cdc(cache, *compress) == ["0", "0"]


def test_several_devices_use_the_cache_of_jax(tmp_path, bundle, photo):
    words = "compress", photo, "-o", tmp_path / "photo.cdc", "--model", bundle
    cdc(tmp_path / "cache", *words, XLA_FLAGS=f"{FAST_COMPILE_FLAGS} --xla_force_host_platform_device_count=2")
    assert not kept(tmp_path / "cache")


def test_a_cache_that_the_user_has_chosen_is_used_instead(tmp_path, bundle, photo):
    words = "compress", photo, "-o", tmp_path / "photo.cdc", "--model", bundle
    cdc(tmp_path / "cache", *words, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert not kept(tmp_path / "cache")
