"""Weights of an entropy model that are the same on every machine."""

from collections.abc import Callable

import numpy as np


def _generator(seed: int) -> Callable[..., np.ndarray]:
    """Returns scaled(factor, *shape): float32, uniform in ±factor, computed with exact operations only."""
    bits = np.random.PCG64(seed)

    def scaled(factor: float, *shape: int) -> np.ndarray:
        raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(41)  # 23 bits
        uniform = (raw.astype(np.float32) * np.float32(2.0**-22) - np.float32(1)).reshape(shape)
        return uniform * np.float32(factor)

    return scaled


def coding_weights(channels: int, seed: int = 0, *, gain: float = 2.0, spread: float = 1.0):
    """(prior parameters, hyper decoder layers) computed with exact float32 operations only, so equal on every machine.

    `gain` scales the hyper decoder's activations, `spread` the width of z's distribution.
    """
    scaled = _generator(seed)
    prior = _prior(scaled, channels, spread)
    size = _unit(9 * channels)
    layers = [(scaled(gain * size, 5, 5, channels, channels), scaled(size, channels)) for _ in range(2)]
    layers.append((scaled(gain * size, 3, 3, channels, 2 * channels), scaled(1.0, 2 * channels) + np.float32(0.5)))
    return prior, layers


def compact_coding_weights(
    channels: int = 3,
    latents: int = 5,
    hidden: int = 4,
    anchors: int = 3,
    seed: int = 0,
    *,
    gain: float = 2.0,
    board: bool = True,
) -> dict:
    """The arguments of `CodingModel.build` for a model of format 2, equal on every machine.

    Scales lie around 1; log2 g goes from about −1 to 3 with the quality. `board`: whether there is a checkerboard.
    """
    scaled = _generator(seed)
    prior = _prior(scaled, channels, 1.0)
    layers = [
        (scaled(gain * _unit(9 * channels), 5, 5, channels, hidden), scaled(0.25, hidden)),
        (scaled(gain * _unit(9 * hidden), 5, 5, hidden, hidden), scaled(0.25, hidden)),
        (scaled(gain * _unit(9 * hidden), 3, 3, hidden, 2 * latents), scaled(0.5, 2 * latents)),
    ]
    growth = np.abs(scaled(4.0 / max(anchors - 1, 1), anchors, latents))
    weights = {
        "prior_params": prior,
        "hyper_decoder_layers": layers,
        "log2_gains": np.cumsum(growth, axis=0, dtype=np.float32) - np.float32(1),
    }
    if board:
        weights["checkerboard_params"] = {
            "anchors": scaled(_unit(4 * latents), 3, 3, 2 * latents, hidden),
            "anchors_bias": scaled(0.25, hidden),
            "features": (scaled(_unit(hidden), 1, 1, hidden, hidden), scaled(0.25, hidden)),
            "quality": (scaled(0.5, 1, hidden), scaled(0.25, hidden)),
            "out": (scaled(_unit(hidden), 1, 1, hidden, 2 * latents), scaled(0.25, 2 * latents)),
        }
    return weights


def _unit(inputs: int) -> float:
    """The largest power of two up to 1/√inputs."""
    return 2.0 ** -np.ceil(np.log2(np.sqrt(inputs)))


def _prior(scaled: Callable[..., np.ndarray], channels: int, spread: float) -> dict:
    widths = (1, 3, 3, 3, 1)
    starts = (np.float32(0.2) - np.float32(0.5 * (spread - 1)), np.float32(-0.3), np.float32(-0.3), np.float32(0.4))
    return {
        "weights": [starts[k] + scaled(0.1, channels, widths[k], widths[k + 1]) for k in range(4)],
        "biases": [scaled(0.5, channels, widths[k + 1]) for k in range(4)],
        "gains": [scaled(0.5, channels, 3) for _ in range(3)],
        "medians": scaled(0.5, channels),
    }
