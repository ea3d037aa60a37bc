"""FID's network agrees with torch-fidelity's for the same random weights, and its file is checked key by key."""

import numpy as np
import pytest

from cdc_jax.errors import CheckpointError
from cdc_jax.metrics import inception
from tests.metrics.pairs import synthetic_pair
from tests.metrics.torch_peers import submodule_without_package

# torch-fidelity 0.4.0 with `random_tensors` on the images of `small_images`: the first four features, the mean.
GOLDEN = np.array(
    [
        [1.0733506680, 0.0, 0.2888877988, 0.0005288126, 0.3242954341],
        [1.0923799276, 0.0, 0.2836411297, 0.0007032381, 0.3275327983],
    ]
)


def random_tensors() -> dict[str, np.ndarray]:
    """Random tensors with the keys of the weights file, the same on every machine, such that activations are near 1."""
    rng = np.random.RandomState(0)
    tensors = {}
    for name, shape in inception.file_shapes().items():
        values = rng.standard_normal(shape).astype(np.float32)
        leaf = name.rpartition(".")[2]
        if name.endswith("bn.weight") or leaf == "running_var":
            values = 1 + 0.2 * np.tanh(values)
        elif leaf in ("bias", "running_mean"):
            values = 0.1 * values
        else:
            values = values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        tensors[name] = values
    return tensors


def small_images() -> np.ndarray:
    return np.stack(synthetic_pair(64, 64))


@pytest.fixture(scope="module")
def tensors():
    return random_tensors()


@pytest.fixture
def load(monkeypatch):
    """Imports tensors as if they were read from a file."""

    def load_tensors(tensors):
        monkeypatch.setattr(inception, "read_torch_file", lambda path: tensors)
        return inception.load_inception("weights.pth")

    return load_tensors


def test_features_are_what_torch_fidelity_gave(tensors, load):
    features = np.asarray(inception.inception_features(load(tensors), small_images()))
    assert features.shape == (2, inception.FEATURES)
    computed = np.concatenate([features[:, :4], features.mean(axis=1, keepdims=True)], axis=1)
    assert computed == pytest.approx(GOLDEN, abs=1e-5)


@pytest.mark.torch
def test_the_network_is_torch_fidelitys(tensors, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    peers = submodule_without_package("torch_fidelity", "feature_extractor_inceptionv3", monkeypatch)
    path = tmp_path / "weights.pth"
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    peer = peers.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    images = small_images()
    with torch.no_grad():
        expected = peer(torch.from_numpy(images.copy()).permute(0, 3, 1, 2))[0].numpy()
    features = np.asarray(inception.inception_features(inception.load_inception(path), images))
    assert features == pytest.approx(expected, abs=1e-4)


def test_faults_are_named_key_by_key(tensors, load):
    wrong = dict(tensors)
    wrong.pop("Mixed_6b.branch7x7_2.conv.weight")
    wrong["AuxLogits.fc.weight"] = np.zeros(3, np.float32)
    wrong["fc.bias"] = np.zeros(1000, np.float32)
    wrong["Mixed_5b.branch1x1.bn.num_batches_tracked"] = np.zeros((), np.int64)  # is ignored
    with pytest.raises(CheckpointError) as caught:
        load(wrong)
    message = str(caught.value)
    assert "lacks Mixed_6b.branch7x7_2.conv.weight" in message
    assert "has the unknown AuxLogits.fc.weight" in message
    assert "another shape at fc.bias" in message
    assert "num_batches_tracked" not in message


def test_weights_that_are_not_finite_are_named(tensors, load):
    name = "Conv2d_1a_3x3.bn.running_var"
    with pytest.raises(CheckpointError, match=name):
        load({**tensors, name: np.full(32, np.nan, np.float32)})
