"""The same weights give a byte-identical coding.npz, so the same fingerprint, wherever they are exported."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.codec.bundle import load_bundle
from cdc_jax.models.params import hyper_decoder_arrays, prior_arrays
from tests.crossplatform.conftest import in_parallel, run_worker
from tests.helpers.coding_weights import coding_weights
from tests.helpers.compact import compact_weights
from tests.helpers.machines import Machine, require_numpy_machines, require_other_python

CPU_SETTINGS = ("NumPy without AVX-512", "NumPy without SIMD", "one BLAS thread")


def _save_weights(path: Path, prior: dict, layers: list) -> Path:
    arrays = {f"{kind}_{k}": array for kind in ("weights", "biases", "gains") for k, array in enumerate(prior[kind])}
    for k, (kernel, bias) in enumerate(layers):
        arrays |= {f"kernel_{k}": kernel, f"bias_{k}": bias}
    np.savez(path, medians=prior["medians"], **arrays)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory, trained_bundle) -> list[Path]:
    """Archives of float weights of entropy models: small, large and trained ones, and a compact model's."""
    folder = tmp_path_factory.mktemp("weights")
    compact = folder / "compact.npz"
    np.savez(compact, **compact_weights())
    params = load_bundle(trained_bundle).params
    return [
        _save_weights(folder / "small.npz", *coding_weights(12, 1)),
        _save_weights(folder / "large.npz", *coding_weights(8, 2, gain=200.0, spread=9.0)),
        _save_weights(folder / "trained.npz", prior_arrays(params), hyper_decoder_arrays(params)),
        compact,
    ]


@pytest.fixture(scope="module")
def built_here(weights, tmp_path_factory) -> dict:
    """The worker's report on the default machine."""
    return run_worker("default", "build", *weights, tmp_path_factory.mktemp("here"))


@pytest.mark.parametrize("name", [*CPU_SETTINGS, "another Python"])
def test_export_gives_the_same_bytes(weights, built_here, tmp_path, name):
    report = run_worker(name, "build", *weights, tmp_path)
    assert report["files"] == built_here["files"] and len(report["files"]) == 4
    if name.startswith("NumPy"):
        assert report["machine"]["np.exp"] != built_here["machine"]["np.exp"]


def test_the_trained_bundle_has_these_bytes(weights, trained_bundle, tmp_path):
    run_worker("default", "build", *weights, tmp_path)
    assert (tmp_path / "trained.npz").read_bytes() == (trained_bundle / "coding.npz").read_bytes()


@pytest.mark.parametrize("variant", ["x", pytest.param("epsilon", marks=pytest.mark.slow)])
def test_import_torch_gives_the_same_bytes(variant, shared_dir, tmp_path):
    """The command itself under every CPU setting, and in another Python."""
    checkpoint = shared_dir / "golden" / f"{variant}param_dim8.pt"
    machines = list(require_numpy_machines())
    with contextlib.suppress(pytest.skip.Exception):
        machines.append(require_other_python())

    def imported(numbered: tuple[int, Machine]) -> bytes:
        out = tmp_path / str(numbered[0])
        numbered[1].run("-m", "cdc_jax", "import-torch", checkpoint, out)
        return (out / "coding.npz").read_bytes()

    found = in_parallel(imported, enumerate(machines))
    assert len(found) >= 2 and len(set(found)) == 1
