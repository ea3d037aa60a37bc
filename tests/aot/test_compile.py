"""Compiling with the real TPU compiler: small programs, and in slow tests the model's."""

import importlib.util
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from cdc_jax.aot import compile as compile_module
from cdc_jax.aot.compile import compile_program, default_cache
from cdc_jax.aot.programs import Program, decode_program, train_program
from cdc_jax.aot.report import fits
from cdc_jax.aot.topology import AVAILABLE_HBM_GIB, GIB, LOCK_VARIABLE, Topology, open_topology
from cdc_jax.errors import CdcError
from cdc_jax.runtime.sharding import split_batch
from cdc_jax.training.config import default_config
from tests.aot.devices import small_program
from tests.helpers.compact import compact_training_config
from tests.helpers.processes import user_environment
from tests.helpers.training import CONFIG


@pytest.fixture(scope="module")
def slice_of_8() -> Topology:
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install '.[tpu]'")
    try:
        return open_topology("v5e:2x4")
    except CdcError as error:
        pytest.skip(str(error))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(compile_module.PROGRAMS, "train_step", lambda config, *rest: small_program(*rest))


def test_a_data_parallel_step_for_eight_chips(slice_of_8, small, tmp_path):
    stats, cached = compile_program(default_config(), slice_of_8, "train_step", 2, tmp_path)
    weights = (128 * 128 + 128) * 4
    assert not cached and stats.chips == 8 and not stats.refusal
    assert stats.argument_bytes >= weights + 2 * 128 * 4
    assert weights <= stats.alias_bytes <= stats.output_bytes, "the donated state is overwritten"
    assert stats.flops == pytest.approx(2 * 2 * 2 * 128 * 128), "forward and the weights' gradient, 2 images per chip"
    assert stats.pass_flops == stats.flops and stats.loop_factor == 1, "the default precision, without loops"
    assert stats.accessed_bytes == stats.compiler_bytes > 3 * weights, "it reads the weights twice and writes them once"
    assert [item.kind for item in stats.collectives] == ["all-reduce"]
    assert stats.collectives[0].result_bytes == weights


def test_the_same_program_comes_from_the_cache(slice_of_8, small, tmp_path):
    first, _ = compile_program(default_config(), slice_of_8, "train_step", 1, tmp_path)
    again, cached = compile_program(default_config(), slice_of_8, "train_step", 1, tmp_path)
    assert cached and again == first
    assert not compile_program(default_config(), slice_of_8, "train_step", 2, tmp_path)[1], "another program"
    another = slice_of_8._replace(compiler="another compiler")
    assert not compile_program(default_config(), another, "train_step", 1, tmp_path)[1]


def test_a_damaged_cache_file_is_compiled_again(slice_of_8, small, tmp_path):
    first, _ = compile_program(default_config(), slice_of_8, "train_step", 1, tmp_path)
    for text in ("", "[]", '{"collectives": []}', "{"):
        next(tmp_path.iterdir()).write_text(text)
        again, cached = compile_program(default_config(), slice_of_8, "train_step", 1, tmp_path)
        assert not cached and again.argument_bytes == first.argument_bytes


@pytest.mark.parametrize("generation", AVAILABLE_HBM_GIB)
def test_a_program_too_large_for_the_chip_is_reported_without_an_error(slice_of_8, generation, monkeypatch, tmp_path):
    """The available memory in the compiler's message is the one in `AVAILABLE_HBM_GIB`."""
    topology = open_topology(f"{generation}:2x2x1" if generation in ("v4", "v5p") else f"{generation}:2x2")

    def sort(config, mesh, batch_per_chip):
        split = split_batch(mesh)
        huge = jax.ShapeDtypeStruct((mesh.size * 2**19, 2**17), jnp.float32)
        return Program(jax.jit(lambda x: jnp.sort(x, axis=1), in_shardings=split, out_shardings=split), (huge,))

    monkeypatch.setitem(compile_module.PROGRAMS, "decode", sort)
    stats, _ = compile_program(default_config(), topology, "decode", 1, tmp_path)
    assert not fits(stats, topology)
    granted = float(re.search(r"exceeds available HBM \(([\d.]+)G\)", stats.refusal)[1])
    assert granted == pytest.approx(AVAILABLE_HBM_GIB[generation], abs=0.011)  # versions differ in the last digit
    assert topology.available_bytes == int(AVAILABLE_HBM_GIB[generation] * GIB)


def test_an_unwritable_cache_names_the_remedy(slice_of_8, small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CdcError, match="--cache"):
        compile_program(default_config(), slice_of_8, "train_step", 1, tmp_path / "file")


def test_the_lock_is_left_to_those_who_use_chips(slice_of_8):
    if os.environ.get(LOCK_VARIABLE) != "1":
        pytest.skip("the environment asks for the lock")
    from tests.aot.lock import LOCK_FILE, lock_holder

    assert lock_holder(LOCK_FILE) != os.getpid()


def test_the_train_step_takes_a_state_and_the_chips_share_of_images():
    """The abstract arguments of the real step, which need neither data nor weights."""
    config = default_config()
    with config.unlocked():
        config.model.width, config.data.crop = 4, 64
    state, images, _ = train_program(config, compile_module.make_mesh(jax.devices()[:1]), 3).arguments
    assert images.shape == (3, 64, 64, 3) and images.dtype == jnp.uint8
    assert state.params.keys() == state.ema.keys() and len(state.params) == 466
    assert config.data.batch_size == default_config().data.batch_size, "the caller's settings stay as they are"


def test_the_decoder_of_a_variable_rate_model_takes_a_quality_per_image():
    program = decode_program(compact_training_config(), compile_module.make_mesh(jax.devices()[:1]), 3)
    assert program.arguments[-1].shape == (3,)
    images = jax.eval_shape(program.function, *program.arguments)
    assert images.shape == (3, 64, 64, 3) and images.dtype == jnp.uint8


def test_the_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CDC_JAX_CACHE", "")
    assert default_cache() == tmp_path / "cdc_jax" / "compiled"
    monkeypatch.setenv("CDC_JAX_CACHE", str(tmp_path / "other"))
    assert default_cache() == tmp_path / "other" / "compiled"
    monkeypatch.setenv("CDC_JAX_CACHE", "off")
    assert default_cache() is None


def run_compile(*arguments):
    command = [sys.executable, "-m", "cdc_jax.main", f"--config={CONFIG}", "--mode=compile"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=user_environment(), timeout=1500)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--topology=v5litepod-8"], "v5e:16x16"),
        (["--batch-per-chip=0"], "--batch-per-chip"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    finished = run_compile(*arguments)
    assert finished.returncode == 2 and message in finished.stderr
    assert finished.stderr.startswith("error:") and finished.stderr.count("\n") == 1


SMALL = ["--config.model.width=4", "--config.data.crop=64", "--config.model.decode_steps=2", "--topology=v5e:2x4"]


def test_the_decoder_as_a_user_compiles_it(slice_of_8, tmp_path):
    """At width 4: the chips do not communicate, and a second run compiles nothing."""
    settings = [*SMALL, "--programs=decode", f"--cache={tmp_path}"]
    finished = run_compile(*settings)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("decode, 1 per chip on v5e:2x4 (8 chips, batch 8), compiled in")
    assert "fits" in finished.stdout and "collectives  none" in finished.stdout
    assert "ESTIMATE" in finished.stdout and "images/s" in finished.stdout and "hours" not in finished.stdout
    assert "from the cache" in run_compile(*settings).stdout


@pytest.mark.slow
def test_the_train_step_as_a_user_compiles_it(slice_of_8, tmp_path):
    """At width 4: the only collectives are all-reduces."""
    finished = run_compile(*SMALL, "--programs=train_step", f"--cache={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    assert "all-reduce" in finished.stdout
    assert "all-gather" not in finished.stdout and "all-to-all" not in finished.stdout
    assert "aliased 0.00" not in finished.stdout, "the donated state is overwritten"
    assert "ESTIMATE" in finished.stdout and "700,000 steps" in finished.stdout
    assert "fits" in finished.stdout
