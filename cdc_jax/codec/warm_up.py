"""Compiles programs before they are needed, for services whose first image must not wait."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cdc_jax.codec.codec import Codec
from cdc_jax.errors import ConfigError
from cdc_jax.models.config import padded_sides


def warm_up(codec: Codec, sizes: Iterable[tuple[int, int]], steps: Iterable[int | None] = (None,)) -> None:
    """Compiles the programs with which a codec encodes and decodes images of these sizes, by coding a gray one.

    Sizes that are equal when rounded up to multiples of 64 share their programs. `enable_compilation_cache` keeps
    programs on disk, so that the next process only loads them.

    Args:
      codec: the codec.
      sizes: (height, width) in pixels.
      steps: the numbers of steps to decode with; None is the model's.

    Raises:
      ConfigError: a size is not a pair of positive numbers, or a number of steps is invalid.
      ImageError: a size is larger than the codec allows.
    """
    counts, padded = list(steps), set()
    for size in sizes:
        if len(size) != 2 or min(size) < 1:
            raise ConfigError(f"A size is (height, width) in pixels, not {size!r}.")
        padded.add(padded_sides(*size))
    for height, width in sorted(padded):
        data = codec.compress(np.full((height, width, 3), 128, np.uint8))
        for count in counts:
            codec.decompress(data, steps=count)
