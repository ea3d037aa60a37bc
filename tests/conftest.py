"""Fixtures that several test files share."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.helpers.processes import FAST_COMPILE_FLAGS

# Tests compile much and compute little. Processes that run as a user's do not get these flags
# (`tests.helpers.processes.user_environment`).
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILE_FLAGS}".strip()

# A program that several processes of a test session need is compiled once, even a small one: there are thousands.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="cdc-test-programs-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# The tests write nothing to the home directory.
os.environ.setdefault("CDC_JAX_CACHE", "off")
# `make test &` starts the tests, and so their child processes, with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent

# Hypothesis tries the same examples in every run.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")


# Linux kills a process that maps more than about 65,000 regions of memory, and each compiled program is several.
_MAX_MAPPED_REGIONS = 20_000


@pytest.fixture(scope="module", autouse=True)
def few_mapped_regions():
    """Forgets compiled programs between test files before the kernel's limit is near."""
    yield
    regions = Path("/proc/self/maps")
    if "jax" in sys.modules and regions.exists() and regions.read_bytes().count(b"\n") > _MAX_MAPPED_REGIONS:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference material next to the repository, which is not part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder shared/ with the reference numbers is not beside the repository")
    return folder


@pytest.fixture(scope="session", params=["x", "epsilon"])
def golden(request, shared_dir):
    """Results of the original program with random weights of width 8, for one variant at a time."""
    from tests.helpers.golden import Golden

    return Golden(request.param, shared_dir / "golden")


@pytest.fixture(scope="session")
def trained_workdir(tmp_path_factory) -> Path:
    """The workdir of a finished training run: a model of width 8, trained for about a minute on photographs.

    Parallel test processes share it. If CDC_TEST_RUN is a folder, the run is kept there for later test sessions. Delete
    it after changes to training.
    """
    pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    from filelock import FileLock

    from tests.helpers.training import run_main, tiny_settings

    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    workdir = Path(os.environ.get("CDC_TEST_RUN") or session / "trained-run")
    with FileLock(f"{workdir}.lock"):
        if not (workdir / "stdout.txt").exists():
            finished = run_main(workdir, **tiny_settings())
            if finished.returncode:
                raise RuntimeError(f"training the tiny model failed:\n{finished.stderr[-3000:]}")
            (workdir / "stdout.txt").write_text(finished.stdout)
    return workdir


@pytest.fixture(scope="session")
def trained_bundle(trained_workdir) -> Path:
    """The bundle of `trained_workdir`."""
    return trained_workdir / "bundle"


@pytest.fixture(scope="session")
def trained_codec(trained_bundle):
    """The codec of `trained_bundle`."""
    import cdc_jax

    return cdc_jax.load_codec(trained_bundle)


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory) -> Path:
    """A bundle of random weights of width 4, the fastest one."""
    from cdc_jax.codec.bundle import save_bundle
    from cdc_jax.models.config import ModelConfig
    from cdc_jax.models.initialization import initial_weights

    config = ModelConfig(width=4, decode_steps=2)
    folder = tmp_path_factory.mktemp("random") / "bundle"
    save_bundle(folder, config, initial_weights(config, 1, latent_gain=8.0), provenance="random weights, for tests")
    return folder


@pytest.fixture(scope="session")
def random_codec(random_bundle):
    """The codec of `random_bundle`."""
    import cdc_jax

    return cdc_jax.load_codec(random_bundle)


@pytest.fixture(scope="session")
def compact_bundle(tmp_path_factory) -> Path:
    """A bundle of the tiny compact variable-rate model, with random weights."""
    from tests.helpers.compact import save_compact_bundle

    return save_compact_bundle(tmp_path_factory.mktemp("compact") / "bundle")


@pytest.fixture(scope="session")
def compact_codec(compact_bundle):
    """The codec of `compact_bundle`."""
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
    """uint8 [300, 451, 3]: the validation photograph of the tiny model."""
    skimage = pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    from cdc_jax.io.images import read_image

    return read_image(Path(skimage.__file__).parent / "data" / "chelsea.png")
