"""Every weight belongs to one part of the model."""

from __future__ import annotations

import pytest

from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import shapes
from cdc_jax.models.weight_groups import Part, decides_symbols, part_of
from tests.helpers.compact import COMPACT


@pytest.mark.parametrize("config", [ModelConfig(width=4), COMPACT], ids=["paper", "compact"])
def test_every_weight_belongs_to_exactly_one_part(config):
    for name in shapes(config):
        assert [part for part in Part if name.startswith(part.value)] == [part_of(name)]


def test_every_part_of_the_compact_model_has_weights():
    assert {part_of(name) for name in shapes(COMPACT)} == set(Part)


def test_the_way_back_from_the_symbols_decides_none_of_them():
    free = {name for name in shapes(COMPACT) if not decides_symbols(name)}
    assert "compressor.transform.synthesis" in free
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in free if name.startswith("compressor.")} == {
        "compressor.transform",
        "compressor.context_decoder",
    }
    assert all(decides_symbols(f"compressor.transform.{name}") for name in ("analysis", "deviations", "log2_gain"))


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"compressor\.nothing\.kernel belongs to no part"):
        part_of("compressor.nothing.kernel")
