"""Compiling for GPUs with the real CUDA compiler, without a GPU; and the errors without the compiler."""

import importlib.metadata

import pytest

from cdc_jax.aot import compile as compile_module
from cdc_jax.aot import gpus
from cdc_jax.aot.compile import compile_program
from cdc_jax.aot.report import describe, describe_time
from cdc_jax.aot.topology import Topology, open_topology
from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.training.config import default_config
from tests.aot.devices import small_program


def test_descriptions_are_text_protobufs():
    text = gpus.target_config("h100")
    assert text.count("{") == text.count("}") == 4
    assert "cuda_compute_capability { major: 9 minor: 0 }" in text
    assert 'platform_name: "CUDA"' in text
    assert gpus.available_bytes("h100") == 84_929_347_584 * 3 // 4


def test_without_the_plugin_the_message_names_the_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(CdcError, match=r"pip install '\.\[cuda\]'"):
        open_topology("h100:8")


@pytest.fixture(scope="module")
def eight_gpus() -> Topology:
    try:
        return open_topology("h100:8")
    except CdcError as error:
        pytest.skip(str(error))


def test_the_shape_is_of_hosts_and_gpus(eight_gpus):
    assert len(eight_gpus.devices) == 8 and len(open_topology("h100:2x4").devices) == 8
    with pytest.raises(ConfigError, match="h100:HOSTSxGPUS"):
        open_topology("h100:2x2x2")


def test_a_data_parallel_step_for_eight_gpus(eight_gpus, monkeypatch, tmp_path):
    monkeypatch.setitem(compile_module.PROGRAMS, "train_step", lambda config, *rest: small_program(*rest))
    stats, cached = compile_program(default_config(), eight_gpus, "train_step", 2, tmp_path)
    weights = (128 * 128 + 128) * 4
    assert not cached and stats.chips == 8 and not stats.refusal
    assert stats.argument_bytes >= weights and stats.alias_bytes >= weights, "the donated state is overwritten"
    assert stats.flops == pytest.approx(2 * 2 * 2 * 128 * 128)
    assert [(item.kind, item.result_bytes) for item in stats.collectives] == [("all-reduce", weights)]
    assert "fits" in describe(stats, eight_gpus, cached) and describe_time(stats) is None
    assert compile_program(default_config(), eight_gpus, "train_step", 2, tmp_path) == (stats, True)
