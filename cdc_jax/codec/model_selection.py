"""Which of several models to compress a picture with, so that its file is small enough or its quality good enough.

Nothing is estimated: every candidate's file is made, and for a quality it is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from cdc_jax.errors import CdcError
from cdc_jax.metrics.distortion import psnr_db


@dataclass(frozen=True)
class Target:
    """What a file must keep to; one of the three is given.

    Attributes:
      bpp: at most so many bits per pixel, headers included.
      file_bytes: at most so many bytes.
      min_psnr_db: at least this PSNR over RGB, decoded with `steps`, `seed`, `gamma`.
      steps, seed, gamma: as `Codec.decompress` takes them.
    """

    bpp: float | None = None
    file_bytes: int | None = None
    min_psnr_db: float | None = None
    steps: int | None = None
    seed: int = 0
    gamma: float | None = None


@dataclass(frozen=True)
class Choice:
    """The chosen model, the file it makes, and why, in a few words."""

    model: str
    data: bytes
    reason: str


def choose(
    models: Sequence[str], load: Callable[[str], object], image: UInt8[np.ndarray, "h w 3"], target: Target
) -> Choice:
    """The largest file within a size, or the smallest that reaches a quality.

    Args:
      models: bundles to choose from.
      load: from a bundle to its codec.
      image: uint8 [h, w, 3].
      target: what to keep to.

    Raises:
      CdcError: no model keeps to it; the message says which comes nearest.
    """
    files = [(load(model).compress(image), model) for model in models]
    if target.min_psnr_db is not None:
        return _by_quality(files, load, image, target)
    pixels = image.shape[0] * image.shape[1]
    limit = target.file_bytes if target.bpp is None else target.bpp * pixels / 8
    fitting = [pair for pair in files if len(pair[0]) <= limit]
    if not fitting:
        data, model = min(files, key=lambda pair: len(pair[0]))
        wanted = f"{target.file_bytes} bytes" if target.bpp is None else f"{target.bpp:g} bpp"
        raise CdcError(
            f"no model makes a file of {wanted} or less; the nearest is {model} with {len(data)} bytes "
            f"({8 * len(data) / pixels:.4f} bpp)"
        )
    data, model = max(fitting, key=lambda pair: len(pair[0]))
    return Choice(model, data, f"largest of {len(fitting)} that fit")


def _by_quality(files, load, image, target: Target) -> Choice:
    best = (-np.inf, "")
    for data, model in sorted(files, key=lambda pair: len(pair[0])):
        decoded = load(model).decompress(data, steps=target.steps, seed=target.seed, gamma=target.gamma)
        psnr = psnr_db(image, decoded)
        if psnr >= target.min_psnr_db:
            return Choice(model, data, f"{psnr:.2f} dB")
        best = max(best, (psnr, model))
    raise CdcError(
        f"no model reaches {target.min_psnr_db:g} dB; the nearest is {best[1]} with {best[0]:.2f} dB"
    )
