"""After `warm_up`, images of these sizes compile nothing."""

from __future__ import annotations

import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.decoding import synthesize
from cdc_jax.codec.encoding import encode_latents
from cdc_jax.errors import ConfigError, ImageError

SIZES = [(250, 60), (256, 40)]  # both padded to 256×64


def compiled() -> tuple[int, int]:
    return encode_latents._cache_size(), synthesize._cache_size()


def test_images_of_the_sizes_compile_nothing(random_codec):
    before = compiled()
    cdc_jax.warm_up(random_codec, SIZES, steps=[1, 3])
    warm = compiled()
    assert (warm[0] - before[0], warm[1] - before[1]) == (1, 2)
    for size in [*SIZES, (256, 64)]:
        data = random_codec.compress(np.zeros((*size, 3), np.uint8))
        for steps in (1, 3):
            random_codec.decompress(data, steps=steps)
    assert compiled() == warm


def test_the_model_s_steps_are_the_default(compact_codec):
    cdc_jax.warm_up(compact_codec, [(320, 64)])
    warm = compiled()
    compact_codec.decompress(compact_codec.compress(np.zeros((320, 64, 3), np.uint8), quality=80))
    assert compiled() == warm


@pytest.mark.parametrize("size", [(64,), (0, 64), (64, -1)])
def test_what_is_no_size(random_codec, size):
    with pytest.raises(ConfigError, match="A size is"):
        cdc_jax.warm_up(random_codec, [size])


def test_limits(random_codec):
    with pytest.raises(ConfigError, match="steps is -1"):
        cdc_jax.warm_up(random_codec, [(64, 64)], steps=[-1])
    with pytest.raises(ImageError, match="more than the limit"):
        cdc_jax.warm_up(random_codec, [(2**15, 2**15)])
