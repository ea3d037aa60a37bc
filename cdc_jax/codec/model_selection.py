"""Selects the model and the quality for which a file meets a target size or PSNR.

Nothing is estimated: every candidate is a real file, which is decoded if the target is a PSNR. For a variable-rate
model, the quality is found by a search. The encoder runs once per image, after which each quality takes milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdc_jax.errors import CdcError
from cdc_jax.io.cdc_file import MAX_LEVEL, QUALITY_STEPS
from cdc_jax.io.images import Image, ImageContents
from cdc_jax.metrics.distortion import psnr_db

_CLOSE_SIZE = 0.998  # the search ends with a file of at least this fraction of the limit
_CLOSE_PSNR_DB = 0.01  # the search ends at most this much above the target


@dataclass(frozen=True)
class Target:
    """What a file must meet. Exactly one of the first three attributes is set.

    Attributes:
      bpp: upper limit on the file's size in bits per pixel, including headers.
      file_bytes: upper limit on the file's size in bytes.
      min_psnr_db: lower limit on the PSNR over RGB in dB, decoded with `steps`, `seed` and `gamma`.
      steps, seed, gamma: as in `Codec.decompress`.
    """

    bpp: float | None = None
    file_bytes: int | None = None
    min_psnr_db: float | None = None
    steps: int | None = None
    seed: int = 0
    gamma: float | None = None


@dataclass(frozen=True)
class Choice:
    """The selected file.

    Attributes:
      model: the model, and the quality if it has one.
      data: the bytes of the file.
      reason: a short text for the user.
    """

    model: str
    data: bytes
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """A file of a model and level; its PSNR if that is the target, otherwise NaN."""

    model: str
    data: bytes
    level: int | None
    psnr_db: float = math.nan

    @property
    def name(self) -> str:
        return self.model if self.level is None else f"{self.model}, quality {self.level / QUALITY_STEPS:.2f}"


def choose(
    models: Sequence[str], load: Callable[[str], object], image: Image | ImageContents, target: Target
) -> Choice:
    """Selects the largest file within a size, or the smallest file that reaches a PSNR.

    Args:
      models: the paths of the bundles to choose from.
      load: loads the codec of a bundle.
      image: uint8 [h, w, 3], or an image with its alpha channel and metadata, which count towards the size.
      target: what the file must meet.

    Raises:
      CdcError: no model meets the target; the message names the nearest one.
    """
    pixels = math.prod(_pixels(image).shape[:2])
    if target.min_psnr_db is not None:
        candidates = [_smallest_that_reaches(model, load(model), image, target) for model in models]
        good = [c for c in candidates if c.psnr_db >= target.min_psnr_db]
        if good:
            chosen = min(good, key=lambda c: len(c.data))
            return Choice(chosen.name, chosen.data, f"{chosen.psnr_db:.2f} dB")
        best = max(candidates, key=lambda c: c.psnr_db)
        raise CdcError(
            f"No model reaches {target.min_psnr_db:g} dB; the nearest is {best.name} with {best.psnr_db:.2f} dB."
        )
    limit = target.file_bytes if target.bpp is None else target.bpp * pixels / 8
    candidates = [_largest_that_fits(model, load(model), image, limit) for model in models]
    fitting = [c for c in candidates if len(c.data) <= limit]
    if fitting:
        chosen = max(fitting, key=lambda c: len(c.data))
        searched = chosen.level is not None
        reason = f"{8 * len(chosen.data) / pixels:.4f} bpp" if searched else f"largest of {len(fitting)} that fit"
        return Choice(chosen.name, chosen.data, reason)
    nearest = min(candidates, key=lambda c: len(c.data))
    wanted = f"{target.file_bytes} bytes" if target.bpp is None else f"{target.bpp:g} bpp"
    raise CdcError(
        f"No model makes a file of {wanted} or less; the nearest is {nearest.name} with {len(nearest.data)} bytes "
        f"({8 * len(nearest.data) / pixels:.4f} bpp)."
    )


def _largest_that_fits(model: str, codec, image, limit_bytes: float) -> _Candidate:
    """The model's largest file of at most `limit_bytes`, or its smallest file if none is."""
    write = _writer(model, codec, image)
    if not codec.config.variable_rate:
        return write(None)
    low, high = write(0), write(MAX_LEVEL)
    if len(low.data) > limit_bytes or len(high.data) <= limit_bytes:
        return low if len(low.data) > limit_bytes else high

    def log_size(candidate: _Candidate) -> float:  # nearly linear in the level
        return math.log(len(candidate.data))

    goal = math.log(0.5 * (1 + _CLOSE_SIZE) * limit_bytes)
    fits = _Search(write, log_size, goal, lambda candidate: len(candidate.data) <= limit_bytes)
    return fits.between(low, high, lambda low, _: len(low.data) >= _CLOSE_SIZE * limit_bytes)[0]


def _smallest_that_reaches(model: str, codec, image, target: Target) -> _Candidate:
    """The model's smallest file that reaches the target's PSNR, or the file with the highest PSNR if none does."""
    write = _writer(model, codec, image)

    def measured(level: int | None) -> _Candidate:
        made = write(level)
        decoded = codec.decompress(made.data, steps=target.steps, seed=target.seed, gamma=target.gamma)
        return _Candidate(model, made.data, level, psnr_db(_pixels(image), decoded))

    if not codec.config.variable_rate:
        return measured(None)
    low, high = measured(0), measured(MAX_LEVEL)
    if low.psnr_db >= target.min_psnr_db or high.psnr_db < target.min_psnr_db:
        return low if low.psnr_db >= target.min_psnr_db else high
    most = target.min_psnr_db + _CLOSE_PSNR_DB
    goal = 0.5 * (target.min_psnr_db + most)
    fails = _Search(measured, lambda c: c.psnr_db, goal, lambda c: c.psnr_db < target.min_psnr_db)
    return fails.between(low, high, lambda _, high: high.psnr_db <= most)[1]


@dataclass(frozen=True)
class _Search:
    """Searches for the level at which a measure crosses a bound.

    Attributes:
      make: makes the candidate of a level.
      measure: a measure of candidates that increases with the level, almost linearly.
      goal: the value to aim at, just on the wanted side of the bound.
      is_low: whether a candidate is on the lower side of the bound.
    """

    make: Callable[[int], _Candidate]
    measure: Callable[[_Candidate], float]
    goal: float
    is_low: Callable[[_Candidate], bool]

    def between(
        self, low: _Candidate, high: _Candidate, close: Callable[[_Candidate, _Candidate], bool]
    ) -> tuple[_Candidate, _Candidate]:
        """Narrows (low, high) until `close(low, high)`, or until their levels are adjacent.

        Interpolates linearly, and bisects after an interpolation that leaves more than half of the levels.
        """
        halve = False
        while high.level - low.level > 1 and not close(low, high):
            width = high.level - low.level
            share = 0.5 if halve else self._share(low, high)
            middle = self.make(low.level + min(max(round(share * width), 1), width - 1))
            low, high = (middle, high) if self.is_low(middle) else (low, middle)
            halve = high.level - low.level > width / 2
        return low, high

    def _share(self, low: _Candidate, high: _Candidate) -> float:
        start, end = self.measure(low), self.measure(high)
        return (self.goal - start) / (end - start)


def _pixels(image: Image | ImageContents) -> Image:
    return image.pixels if isinstance(image, ImageContents) else image


def _writer(model: str, codec, image) -> Callable[[int | None], _Candidate]:
    latents = codec.analyze(image)

    def write(level: int | None) -> _Candidate:
        quality = None if level is None else level / QUALITY_STEPS
        return _Candidate(model, codec.write(latents, quality=quality), level)

    return write
