"""Fixtures of the entropy coder's tests: weights that are the same on every machine, and CPU settings."""

import numpy as np
import pytest

from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from tests.helpers.coding_weights import coding_weights, compact_coding_weights
from tests.helpers.machines import ROOT, require_numpy_machines


@pytest.fixture(scope="session", name="coding_weights")
def coding_weights_fixture():
    return coding_weights


@pytest.fixture(scope="session")
def small_model() -> CodingModel:
    return CodingModel.build(*coding_weights(6))


@pytest.fixture(scope="session")
def compact_model() -> CodingModel:
    """A model of format 2: z has 3 channels, y 5, three anchors, a checkerboard."""
    return CodingModel.build(**compact_coding_weights())


@pytest.fixture(scope="session")
def golden_weights():
    """(prior, layers, arrays) of the original program's random weights, from the folder next to the repository."""
    path = ROOT.parent / "shared" / "golden" / "xparam_dim8.npz"
    if not path.is_file():
        pytest.skip("needs ../shared/golden, the original program's numbers")
    arrays = np.load(path)

    def parameter(name: str) -> np.ndarray:
        return arrays[f"param/context_fn.{name}"]

    prior = {
        "weights": [parameter(f"prior.affine.{k}.weight")[:, 0, 0] for k in range(4)],
        "biases": [parameter(f"prior.affine.{k}.bias")[:, 0, 0, 0] for k in range(4)],
        "gains": [parameter(f"prior.a.{k}")[:, 0, 0, 0] for k in range(3)],
        "medians": parameter("prior._medians").reshape(-1),
    }
    # Transposed convolutions are stored (in, out, kh, kw) and are convolutions: flipped they cross-correlate.
    kernels = [parameter(f"hyper_dec.{i}.0.weight")[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) for i in range(2)]
    kernels.append(parameter("hyper_dec.2.0.weight").transpose(2, 3, 1, 0))
    layers = [(np.ascontiguousarray(kernels[i]), parameter(f"hyper_dec.{i}.0.bias")) for i in range(3)]
    return prior, layers, arrays


@pytest.fixture(scope="session")
def check_same_on_every_cpu():
    """check(script): it prints the same under all settings of NumPy's CPU features that change np.exp's bits."""
    machines = require_numpy_machines()
    assert len(machines) >= 2

    def check(script: str) -> None:
        assert len({machine.run("-c", script) for machine in machines}) == 1

    return check


@pytest.fixture(scope="session")
def coder(small_model) -> EntropyCoder:
    return EntropyCoder(small_model)


@pytest.fixture(scope="session")
def wide_coder(coding_weights) -> EntropyCoder:
    """A coder whose z is spread over hundreds of integers, and y's scales over most of their range."""
    return EntropyCoder(CodingModel.build(*coding_weights(4, gain=12.0, spread=9.0)))
