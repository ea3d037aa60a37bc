"""The programs for CUDA GPUs and TPUs, lowered on any machine, contain nothing that only CPUs should compute."""

import re
from collections import Counter

import jax
import pytest

from cdc_jax.aot.programs import PROGRAMS
from cdc_jax.runtime.sharding import make_mesh
from cdc_jax.training.config import default_config
from tests.helpers.compact import compact_training_config

_PRODUCT = re.compile(r"stablehlo\.(convolution|dot_general)\b(.*)$", re.MULTILINE)
_NAMES = re.compile(r"%[\w#:]+|loc\(.*?\)")


def traced(program: str):
    """The training step of the tiny compact model, or the decoder of the paper's layout at width 4."""
    config = compact_training_config()
    if program == "decode":
        config = default_config()
        with config.unlocked():
            config.model.width, config.data.crop, config.model.decode_steps = 4, 64, 2
    function, arguments = PROGRAMS[program](config, make_mesh(jax.devices()[:1]), 2)
    return function.trace(*arguments)


def products(program, platform: str) -> Counter:
    """The convolutions and matrix products of a traced program on a platform, with their shapes and settings."""
    text = program.lower(lowering_platforms=(platform,)).as_text()
    return Counter(kind + _NAMES.sub("", rest) for kind, rest in _PRODUCT.findall(text))


@pytest.mark.parametrize(("program", "upsamplings"), [("train_step", 6), ("decode", 8)])
def test_accelerators_get_xlas_gradients_and_transposed_convolutions(program, upsamplings, monkeypatch):
    """Their products are those of the program without any code for CPUs, and CPUs get others."""
    own = traced(program)
    on_gpu = products(own, "cuda")
    assert products(own, "tpu") == on_gpu != products(own, "cpu")
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, default, **_: default(*given))
    assert products(traced(program), "cuda") == on_gpu
    assert sum("lhs_dilate = [2, 2]" in line for line in on_gpu.elements()) >= upsamplings
