"""Fixtures that several test files share."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.helpers.processes import FAST_COMPILE_FLAG

# Tests compile much and compute little: without LLVM's optimizations they take half the time. Processes that tests
# start as a user would do without it, see `tests.helpers.processes.user_environment`.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILE_FLAG}".strip()

# A program that several processes of one test session need is compiled once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="cdc-test-programs-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# Nothing is left in the home directory.
os.environ.setdefault("CDC_JAX_CACHE", "off")
# `make test &` has a shell start us, and so all our child processes, with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference material that lies beside the repository and is not part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder shared/ with the reference numbers is not beside the repository")
    return folder


@pytest.fixture(scope="session", params=["x", "epsilon"])
def golden(request, shared_dir):
    """Numbers that the original program computed from random weights of width 8, one variant at a time."""
    from tests.helpers.golden import Golden

    return Golden(request.param, shared_dir / "golden")


@pytest.fixture(scope="session")
def trained_workdir(tmp_path_factory) -> Path:
    """A finished run of the command a user types: a model of width 8, trained for about a minute on photographs.

    Set CDC_TEST_RUN to a folder to train once and use that run in later sessions, too, while you work on other things
    than training.
    """
    pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    from tests.helpers.training import run_main, tiny_settings

    workdir = Path(os.environ.get("CDC_TEST_RUN") or tmp_path_factory.mktemp("trained") / "run")
    if (workdir / "stdout.txt").exists():
        return workdir
    finished = run_main(workdir, **tiny_settings())
    if finished.returncode:
        raise RuntimeError(f"training the tiny model failed:\n{finished.stderr[-3000:]}")
    (workdir / "stdout.txt").write_text(finished.stdout)
    return workdir


@pytest.fixture(scope="session")
def trained_bundle(trained_workdir) -> Path:
    """Its bundle."""
    return trained_workdir / "bundle"


@pytest.fixture(scope="session")
def trained_codec(trained_bundle):
    """Its codec."""
    import cdc_jax

    return cdc_jax.load_codec(trained_bundle)


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory) -> Path:
    """A bundle of random weights, width 4: the fastest there is."""
    from cdc_jax.codec.bundle import save_bundle
    from cdc_jax.models.config import ModelConfig
    from cdc_jax.models.initialization import initial_weights

    config = ModelConfig(width=4, decode_steps=2)
    folder = tmp_path_factory.mktemp("random") / "bundle"
    save_bundle(folder, config, initial_weights(config, 1, latent_gain=8.0), provenance="random weights, for tests")
    return folder


@pytest.fixture(scope="session")
def random_codec(random_bundle):
    """Its codec."""
    import cdc_jax

    return cdc_jax.load_codec(random_bundle)


@pytest.fixture(scope="session")
def compact_bundle(tmp_path_factory) -> Path:
    """A bundle of the tiny compact model of every rate, with random weights."""
    from tests.helpers.compact import save_compact_bundle

    return save_compact_bundle(tmp_path_factory.mktemp("compact") / "bundle")


@pytest.fixture(scope="session")
def compact_codec(compact_bundle):
    """Its codec."""
    import cdc_jax

    return cdc_jax.load_codec(compact_bundle)


@pytest.fixture
def hub():
    """A hub on this machine, without repositories."""
    pytest.importorskip("huggingface_hub", reason="the package is not installed: pip install '.[hub]'")
    from tests.helpers.hub_server import running_hub

    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub_client(hub, tmp_path):
    """Runs commands against it, with an empty cache."""
    from tests.helpers.hub_client import HubClient

    return HubClient(hub, tmp_path / "hub-home")


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """uint8 [300, 451, 3]: the photograph that the tiny model was not trained on."""
    skimage = pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    from cdc_jax.io.images import read_image

    return read_image(Path(skimage.__file__).parent / "data" / "chelsea.png")
