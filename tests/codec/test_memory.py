"""The estimate of decoding's memory against the peak of processes that decode."""

from __future__ import annotations

import functools
import math
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec import memory
from cdc_jax.codec.bundle import save_bundle
from cdc_jax.codec.decoding import prepare
from cdc_jax.codec.memory import decoding_bytes, kept_bytes, tiles_to_keep
from cdc_jax.codec.tiling import default_tile
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import shapes
from tests.helpers.compact import COMPACT
from tests.helpers.processes import ROOT, user_environment

DECODE = """
import resource, sys
from pathlib import Path
import cdc_jax
cdc_jax.load_codec(sys.argv[1]).decompress(Path(sys.argv[2]).read_bytes(), steps=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def compact_config() -> ModelConfig:
    from cdc_jax.training.config import model_config

    return model_config(runpy.run_path(str(ROOT / "configs" / "compact.py"))["get_config"]())


@pytest.fixture(scope="module")
def compact_layout(tmp_path_factory):
    """(bundle, codec) of configs/compact.py, with random weights."""
    folder, config = tmp_path_factory.mktemp("memory") / "bundle", compact_config()
    save_bundle(folder, config, initial_weights(config, 0), provenance="random weights, for tests", half=True)
    return folder, cdc_jax.load_codec(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(512, 512), (1024, 1024), (1536, 2048)])
def test_the_estimate_is_above_the_peak_and_near_it(compact_layout, tmp_path, height, width):
    folder, codec = compact_layout
    image = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    (tmp_path / "a.cdc").write_bytes(codec.compress(image.repeat(8, 0).repeat(8, 1)))
    command = [sys.executable, "-c", DECODE, str(folder), str(tmp_path / "a.cdc")]
    finished = subprocess.run(command, env=user_environment(), capture_output=True, text=True, check=True)
    estimate = decoding_bytes(height, width, default_tile(height, width), codec.config)
    assert int(finished.stdout) < estimate < 2.1 * int(finished.stdout)


def test_a_compact_model_takes_less_than_the_papers_of_its_width():
    """Its first level has a sixteenth of the pixels."""
    sizes = 1024, 1024, None
    assert decoding_bytes(*sizes, compact_config()) < 0.35 * decoding_bytes(*sizes, ModelConfig(width=64))


@pytest.mark.parametrize(("width", "size", "measured_gib"), [(16, (1024, 1024), 1.40), (64, (512, 768), 2.27)])
def test_the_papers_layout(width, size, measured_gib):
    """Peaks from docs/performance.md."""
    estimate = decoding_bytes(*size, None, ModelConfig(width=width)) / 2**30
    assert measured_gib < estimate < 1.45 * measured_gib


def test_more_devices_and_larger_tiles_take_more():
    config = ModelConfig(width=8)
    assert decoding_bytes(2048, 2048, 768, config) < decoding_bytes(2048, 2048, 768, config, devices=2)
    assert decoding_bytes(2048, 2048, 768, config) < decoding_bytes(2048, 2048, 1536, config)


@pytest.mark.parametrize(
    "config", [ModelConfig(width=4), ModelConfig(prediction="epsilon", width=8), COMPACT, compact_config()]
)
def test_what_tiles_keep_is_predicted_exactly(config):
    """From the model's channels alone."""
    cells = jax.ShapeDtypeStruct((1, 8, 12, config.latent_channels), np.float32)
    quality = jax.ShapeDtypeStruct((1,), np.float32) if config.variable_rate else None
    maps = jax.eval_shape(functools.partial(prepare, config), shapes(config), cells, quality)
    one = sum(4 * math.prod(each.shape) for each in maps)
    assert kept_bytes(128, 192, None, config) == one
    assert kept_bytes(128, 512, 192, config) == one, "tiles of 128×192"


class Device:
    """A device with its own memory, in bytes."""

    def __init__(self, limit: int, in_use: int = 0):
        self.limit, self.in_use = limit, in_use

    def memory_stats(self):
        return {"bytes_limit": self.limit, "bytes_in_use": self.in_use}


def test_as_many_tiles_are_kept_as_a_limit_allows():
    case = 2048, 2048, 768, COMPACT
    one, host = kept_bytes(*case), jax.local_devices()[:1]
    for spare, tiles in ((-1, 0), (0, 0), (one - 1, 0), (one, 1), (5 * one, 5), (5 * one - 1, 4)):
        assert tiles_to_keep(*case, host, decoding_bytes(*case) + spare) == tiles
    two = decoding_bytes(*case, devices=2)
    assert tiles_to_keep(*case, 2 * host, two + 5 * one) == 2, "on each of two devices"


def test_without_a_limit_they_take_what_the_compiler_gave_back_or_half_of_the_free_memory(monkeypatch):
    case = 2048, 2048, 768, COMPACT
    one, host = kept_bytes(*case), jax.local_devices()[:1]
    monkeypatch.setattr(memory, "_COMPILER_BYTES", 3 * one)
    monkeypatch.setattr(memory, "used_bytes", lambda: decoding_bytes(*case))
    for free, tiles in ((math.inf, 3), (6 * one, 3), (6 * one - 1, 2), (2 * one, 1), (2 * one - 1, 0), (0, 0)):
        monkeypatch.setattr(memory, "free_bytes", lambda free=free: free)
        assert tiles_to_keep(*case, host) == tiles
    monkeypatch.setattr(memory, "free_bytes", lambda: 2 * one)
    monkeypatch.setattr(memory, "used_bytes", lambda: decoding_bytes(*case) - 1)
    assert tiles_to_keep(*case, host) == 0, "what decoding itself still takes is not free"
    assert tiles_to_keep(*case, [Device(8 * one)]) == 4 and tiles_to_keep(*case, [Device(8 * one, 1)]) == 3
    assert tiles_to_keep(*case, [Device(8 * one), Device(8 * one)]) == 4, "each takes half"
