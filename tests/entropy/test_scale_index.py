"""Scale indices from a lookup table equal those of a search, for any thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.latents import LatentModel
from tests.helpers.coding_weights import compact_coding_weights

LOWEST, HIGHEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max


@pytest.fixture(scope="module")
def latents() -> LatentModel:
    return CodingModel.build(**compact_coding_weights()).latents


@pytest.mark.parametrize(
    ("first", "last"), [(-500_000, 600_000), (7, 7), (LOWEST, LOWEST + 90), (HIGHEST - 90, HIGHEST), (LOWEST, HIGHEST)]
)
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_the_index_is_the_number_of_thresholds_up_to_the_scale(latents, first, last, kind):
    rng = np.random.default_rng(0)
    thresholds = np.sort(np.append(rng.integers(first, last + 1, 253), [first, last])).astype(np.int32)
    model = LatentModel(replace(latents.hyper_decoder, thresholds=thresholds), latents.gains, latents.checkerboard)
    near = thresholds[:, None].astype(np.int64) + [-1, 0, 1]
    values = np.clip(np.append(near, [LOWEST, -1, 0, HIGHEST]), LOWEST, HIGHEST).astype(kind)
    expected = [(thresholds <= value).sum() for value in values.tolist()]
    index = model.scale_index(values)
    assert index.dtype == np.uint8 and index.tolist() == expected
