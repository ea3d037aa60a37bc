"""The estimate of decoding's memory against the peak of processes that decode."""

from __future__ import annotations

import runpy
import subprocess
import sys

import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.bundle import save_bundle
from cdc_jax.codec.memory import decoding_bytes
from cdc_jax.codec.tiling import default_tile
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
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
