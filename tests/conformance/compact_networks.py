"""Random networks of a variable-rate model, for `our_side.py`."""

import numpy as np


def compact_networks(channels: int, random: np.random.Generator, latents: int = 48, hidden: int = 40) -> tuple:
    """(hyper decoder's layers, log2 gains, checkerboard). At the case's level, log₂ σ is between about −4 and 5."""

    def layer(inputs: int, outputs: int, *side: int, taps: float) -> tuple[np.ndarray, np.ndarray]:
        kernel = random.normal(0, np.sqrt(1 / (taps * inputs)), (*side, inputs, outputs))
        return kernel.astype(np.float32), np.zeros(outputs, np.float32)

    layers = [
        layer(channels, hidden, 5, 5, taps=6.25 * 100),  # z's width is about 10
        layer(hidden, hidden, 5, 5, taps=6.25),
        layer(hidden, 2 * latents, 3, 3, taps=9),
    ]
    gains = np.linspace(0, 4, 4)[:, None] + random.uniform(-1, 1, latents)
    for kernel, bias in layers[2:]:
        kernel[..., latents:] *= 0.3
        bias[latents:] = (random.uniform(-4, 5, latents) - gains[1]) / 4
    board = {
        "anchors": layer(2 * latents, hidden, 3, 3, taps=12)[0],
        "anchors_bias": np.zeros(hidden, np.float32),
        "features": layer(hidden, hidden, 1, 1, taps=1),
        "quality": layer(1, hidden, taps=1),
        "out": layer(hidden, 2 * latents, 1, 1, taps=100),
    }
    return layers, gains.astype(np.float32), board
