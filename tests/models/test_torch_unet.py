"""The benchmarks' U-Net of PyTorch layers is the U-Net that `plain_unet` defines."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.models.compressor import Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.plain_unet import plain_unet
from tests.helpers.golden import relative_error
from tests.helpers.processes import ROOT


@pytest.mark.torch
def test_pytorch_layers_have_the_same_output(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from torch_unet import our_layout, torch_name, torch_unet

    config, random = ModelConfig(width=4), np.random.default_rng(0)
    weights = {n: v for n, v in initial_weights(config, 0).items() if n.startswith("unet.")}
    weights = {n: v + 0.1 * random.normal(size=v.shape).astype(np.float32) for n, v in weights.items()}
    maps = tuple(random.normal(size=(2, 64 >> i, 64 >> i, c)) for i, c in enumerate(config.context_channels))
    x, *maps = (np.float32(v) for v in (random.normal(size=(2, 64, 64, 3)), *maps))
    time, network = np.float32([0.2, 0.7]), torch_unet(config, weights)
    with torch.no_grad():
        inputs = [torch.from_numpy(v).permute(0, 3, 1, 2) for v in (x, *maps)]
        found = network(inputs[0], torch.from_numpy(time), inputs[1:]).permute(0, 2, 3, 1).numpy()
    context = Context(tuple(map(jnp.asarray, maps)), None)
    expected = jax.jit(lambda weights, x: plain_unet(config, weights, x, time, context))(weights, x)
    assert relative_error(found, expected) < 2e-5
    state = network.state_dict()
    for name, value in weights.items():
        np.testing.assert_array_equal(our_layout(name, state[torch_name(name)].numpy(), config), value)


def test_without_pytorch_the_benchmark_says_so_in_one_line(monkeypatch):
    import importlib.util
    import runpy

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match=r"^PyTorch is missing: pip install '\.\[torch\]'$"):
        runpy.run_path(ROOT / "benchmarks" / "against_torch.py", run_name="__main__")
