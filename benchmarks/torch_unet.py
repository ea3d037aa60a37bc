"""The paper's U-Net assembled from PyTorch's layers, for comparison; its modules have the names of ours.

NCHW maps, OIHW kernels, and each layer as the paper's program computes it: inputs are concatenated, ChannelNorm takes
mean and variance, attention takes four products.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import transposed_convolutions


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale, self.bias = (nn.Parameter(torch.empty(channels)) for _ in range(2))

    def forward(self, x):
        variance, mean = torch.var_mean(x, dim=1, unbiased=False, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5) * self.scale[:, None, None] + self.bias[:, None, None]


class ConvNormRelu(nn.Module):
    """conv k×k → ChannelNorm → ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), ChannelNorm(outputs)

    def forward(self, x):
        return functional.relu(self.norm(self.conv(x)))


class ResnetBlock(nn.Module):
    """Two ConvNormRelu, time features between them, and a skip connection."""

    def __init__(self, inputs: int, outputs: int, kernel: int, width: int):
        super().__init__()
        self.block1, self.block2 = ConvNormRelu(inputs, outputs, kernel), ConvNormRelu(outputs, outputs, 3)
        self.time = nn.Linear(width, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x, time):
        h = self.block1(x) + self.time(functional.leaky_relu(time, 0.2))[:, :, None, None]
        return self.block2(h) + self.skip(x)


class Attention(nn.Module):
    """Linear attention over all positions, with one head and a skip connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        query, key, value = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        context = key.softmax(dim=-1) @ value.transpose(1, 2)
        attended = context.transpose(1, 2) @ (query * x.shape[1] ** -0.5)
        return x + self.out(attended.reshape(x.shape))


class Level(nn.Module):
    """Two residual blocks and attention; `resize` follows outside."""

    def __init__(self, inputs: int, outputs: int, width: int, kernel: int = 3, resize: nn.Module | None = None):
        super().__init__()
        self.block1 = ResnetBlock(inputs, outputs, kernel, width)
        self.block2 = ResnetBlock(outputs, outputs, 3, width)
        self.attention, self.resize = Attention(outputs), resize

    def forward(self, x, time):
        return self.attention(self.block2(self.block1(x, time), time))


class TorchUNet(nn.Module):
    """(noisy image [b, 3, h, w], time [b], context maps) → prediction [b, 3, h, w]."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        d, widths = config.width, config.unet_channels
        contexts = (*config.context_channels, *[0] * (len(widths) - len(config.context_channels)))
        self.time_embedding = nn.ModuleDict({"first": nn.Linear(1, 4 * d), "second": nn.Linear(4 * d, d)})
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, (inputs, outputs) in enumerate(zip((3, *widths[:-1]), widths, strict=True)):
            down = nn.Conv2d(outputs, outputs, 3, 2, 1) if i < len(widths) - 1 else None
            self.downs.append(Level(inputs + contexts[i], outputs, d, 3 if i else 7, down))
        self.middle = nn.ModuleList([ResnetBlock(widths[-1], widths[-1], 3, d) for _ in range(2)])
        self.middle_attention = Attention(widths[-1])
        for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.ups.append(Level(2 * deep, shallow, d, 3, nn.ConvTranspose2d(shallow, shallow, 4, 2, 1)))
        self.final_norm, self.final_conv = ChannelNorm(d), nn.Conv2d(d, 3, 7, padding=3)

    def forward(self, x, time, context):
        time = self.time_embedding["second"](functional.gelu(self.time_embedding["first"](time[:, None])))
        context, kept = list(context), []
        for level in self.downs:
            x = level(torch.cat([x, context.pop(0)], dim=1) if context else x, time)
            kept.append(x)
            x = x if level.resize is None else level.resize(x)
        first, second = self.middle
        x = second(self.middle_attention(first(x, time)), time)
        for level in self.ups:
            x = level.resize(level(torch.cat([x, kept.pop()], dim=1), time))
        return self.final_conv(self.final_norm(x))


def torch_unet(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> TorchUNet:
    """The network with our weights, which have dotted names `unet.…`; other weights are ignored."""
    transposed = transposed_convolutions(config)
    state = {
        torch_name(name): torch.from_numpy(np.array(_torch_layout(name, np.asarray(value), transposed)))
        for name, value in weights.items()
        if name.startswith("unet.")
    }
    network = TorchUNet(config)
    network.load_state_dict(state)
    return network


def torch_name(name: str) -> str:
    """The network's name for our weight `name`."""
    return name.removeprefix("unet.").replace(".kernel", ".weight")


def our_layout(name: str, tensor: np.ndarray, config: ModelConfig) -> np.ndarray:
    """The network's weight (or gradient) in the layout of ours, `name`."""
    if tensor.ndim == 4 and name.removesuffix(".kernel") in transposed_convolutions(config):
        return tensor[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _torch_layout(name: str, value: np.ndarray, transposed) -> np.ndarray:
    if value.ndim == 4 and name.removesuffix(".kernel") in transposed:  # a true convolution: flipped
        return value[::-1, ::-1].transpose(2, 3, 0, 1)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
