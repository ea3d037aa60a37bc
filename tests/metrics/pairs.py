"""Pairs of images that are the same on every machine, for which values of other programs are recorded."""

from __future__ import annotations

import numpy as np


def synthetic_pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [height, width, 3] twice: smooth shapes with stripes, and the same coarsened and noisy. Integers only."""
    rows, columns = np.mgrid[:height, :width]
    red = (rows * 3 + columns * 2) % 256
    green = ((rows - height // 2) ** 2 // 16 + (columns - width // 3) ** 2 // 24) % 256
    blue = np.where((rows // 8 + columns // 12) % 2 == 0, 60, 190)
    original = np.stack([red, green, blue], axis=-1)
    noise = np.random.RandomState(0).randint(-12, 13, original.shape)  # NumPy guarantees this generator's numbers
    decoded = np.clip(original // 24 * 24 + 12 + noise, 0, 255)
    return original.astype(np.uint8), decoded.astype(np.uint8)


def photograph_pair(photograph: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A crop of scikit-image's cat, and the same with coarser values and some lines shifted."""
    original = photograph[60 : 60 + side, 120 : 120 + side]
    decoded = original // 20 * 20 + 10
    decoded[::2] = np.roll(decoded[::2], 1, axis=1)
    return original, decoded
