"""Pixel-wise distortion."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8


def psnr_db(reference: UInt8[np.ndarray, "h w 3"], decoded: UInt8[np.ndarray, "h w 3"]) -> float:
    """Peak signal-to-noise ratio over the three RGB channels, in dB; infinite for equal pictures."""
    error = np.mean((reference.astype(np.float64) - decoded.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
