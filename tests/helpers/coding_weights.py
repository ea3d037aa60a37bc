"""Weights of an entropy model that are the same on every machine."""

import numpy as np


def coding_weights(channels: int, seed: int = 0, *, gain: float = 2.0, spread: float = 1.0):
    """(prior parameters, hyper decoder layers) made of exact float32 operations alone, so equal on every machine.

    `gain` scales the hyper decoder's activations, `spread` the width of z's distribution.
    """
    bits = np.random.PCG64(seed)

    def uniform(*shape: int) -> np.ndarray:
        raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(41)  # 23 bits
        return (raw.astype(np.float32) * np.float32(2.0**-22) - np.float32(1)).reshape(shape)

    def scaled(factor: float, *shape: int) -> np.ndarray:
        return uniform(*shape) * np.float32(factor)

    widths = (1, 3, 3, 3, 1)
    starts = (np.float32(0.2) - np.float32(0.5 * (spread - 1)), np.float32(-0.3), np.float32(-0.3), np.float32(0.4))
    prior = {
        "weights": [starts[k] + scaled(0.1, channels, widths[k], widths[k + 1]) for k in range(4)],
        "biases": [scaled(0.5, channels, widths[k + 1]) for k in range(4)],
        "gains": [scaled(0.5, channels, 3) for _ in range(3)],
        "medians": scaled(0.5, channels),
    }
    size = 2.0 ** -np.ceil(np.log2(np.sqrt(9 * channels)))
    layers = [(scaled(gain * size, 5, 5, channels, channels), scaled(size, channels)) for _ in range(2)]
    layers.append((scaled(gain * size, 3, 3, channels, 2 * channels), scaled(1.0, 2 * channels) + np.float32(0.5)))
    return prior, layers
