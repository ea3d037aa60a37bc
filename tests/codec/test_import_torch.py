"""Released checkpoints: an imported model decodes like the original, and errors name the weight."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.import_torch import config_of, import_torch, read_checkpoint, torch_modules, torch_name
from cdc_jax.errors import BundleError, CheckpointError
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import shapes


@pytest.fixture(scope="module")
def imported(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp(golden.variant) / "bundle"
    import_torch(golden.checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def codec(imported):
    return cdc_jax.load_codec(imported)


@pytest.fixture
def torch():
    """PyTorch, which writes the files of these tests; reading them does not need it."""
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")


@pytest.fixture
def fake_checkpoint(torch):
    """Writes an x checkpoint of width 2 with all weights at 0.1, except for changes (None omits a weight)."""
    return functools.partial(_fake_checkpoint, torch)


def _fake_checkpoint(torch, path, **changes):
    config = ModelConfig(width=2)
    modules = torch_modules("x")
    tensors = {}
    for name, leaf in shapes(config).items():
        shape = leaf.shape
        if name.endswith("kernel"):
            is_up = any(part in name for part in (".ups.", "hyper_decoder.convs.0", "hyper_decoder.convs.1"))
            if len(shape) == 4:
                kh, kw, i, o = shape
                shape = (i, o, kh, kw) if is_up and ("resize" in name or "compressor" in name) else (o, i, kh, kw)
            else:
                shape = shape[::-1]
        tensors[torch_name(name, modules)] = torch.full(shape, 0.1)
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    torch.save({"step": 1, "model": tensors}, path)
    return path


def test_variant_and_width_are_recognized(golden):
    assert config_of(read_checkpoint(golden.checkpoint)).prediction == golden.variant
    assert config_of(read_checkpoint(golden.checkpoint)).width == 8


def test_the_moving_average_is_imported(golden):
    tensors = read_checkpoint(golden.checkpoint)
    for name in golden.names("param/"):
        np.testing.assert_array_equal(tensors[name.removeprefix("param/")], golden.raw(name))


@pytest.mark.torch
def test_tensors_are_those_that_torch_reads(golden, torch):
    expected = torch.load(golden.checkpoint, map_location="cpu", weights_only=True)
    if "ema" in expected:
        names = [name for name in expected["ema"] if name.startswith("ema_model.")]
        expected = {name.removeprefix("ema_model."): expected["ema"][name] for name in names}
    else:
        expected = expected["model"]
    actual = read_checkpoint(golden.checkpoint)
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(actual[name], tensor.numpy(), err_msg=name)


def test_importing_twice_gives_the_same_coding_file(golden, imported, tmp_path):
    import_torch(golden.checkpoint, tmp_path / "again")
    assert (tmp_path / "again/coding.npz").read_bytes() == (imported / "coding.npz").read_bytes()


def test_symbols_are_the_originals(golden, codec):
    wrong = 0
    for i, image in enumerate(golden.images()):
        z, y = codec.read_symbols(codec.compress(image))
        np.testing.assert_array_equal(z, np.rint(golden["hyper_latent"][i] - golden.medians()))
        wrong += np.count_nonzero(y != np.rint(golden["latent"][i] - golden["mean"][i]))
    assert wrong <= 2


def test_file_size_is_the_originals_rate(golden, codec):
    for image, bpp in zip(golden.images(), golden["bpp_eval"], strict=True):
        rate_bytes = bpp * image.shape[0] * image.shape[1] / 8
        assert abs(len(codec.compress(image)) - rate_bytes) <= 0.01 * rate_bytes + 24


def test_decoded_images_are_the_originals(golden, codec):
    if golden.variant != "x":
        pytest.skip("with random weights the epsilon variant's images lie far outside of 8 bits")
    for i, image in enumerate(golden.images()):
        data = codec.compress(image)
        for steps in (1, 5):
            reference = np.clip((golden[f"decoded_{steps}_gamma0"][i] + 1) * 127.5 + 0.5, 0, 255).astype(int)
            difference = np.abs(codec.decompress(data, steps=steps, gamma=0).astype(int) - reference)
            assert np.mean(difference <= 2) >= 0.99


@pytest.mark.torch
def test_a_fake_checkpoint_imports(fake_checkpoint, tmp_path):
    import_torch(fake_checkpoint(tmp_path / "fake.pt"), tmp_path / "bundle")
    assert cdc_jax.load_codec(tmp_path / "bundle").config == ModelConfig(width=2)


@pytest.mark.torch
def test_missing_weight_is_named(fake_checkpoint, tmp_path):
    name = "denoise_fn.downs.2.1.block2.block.0.weight"
    path = fake_checkpoint(tmp_path / "fake.pt", **{name: None})
    with pytest.raises(CheckpointError, match=name):
        import_torch(path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.torch
def test_misshaped_weight_is_named(torch, fake_checkpoint, tmp_path):
    name = "context_fn.hyper_enc.1.0.weight"
    path = fake_checkpoint(tmp_path / "fake.pt", **{name: torch.zeros(8, 8, 3, 3)})
    with pytest.raises(CheckpointError, match=name):
        import_torch(path, tmp_path / "bundle")


@pytest.mark.torch
def test_weight_that_is_not_finite_is_named(torch, fake_checkpoint, tmp_path):
    name = "context_fn.hyper_enc.1.0.bias"
    path = fake_checkpoint(tmp_path / "fake.pt", **{name: torch.full((8,), float("nan"))})
    with pytest.raises(CheckpointError, match=name):
        import_torch(path, tmp_path / "bundle")


@pytest.mark.torch
def test_lpips_network_is_stored_separately(torch, fake_checkpoint, tmp_path):
    path = fake_checkpoint(tmp_path / "fake.pt", **{"loss_fn_vgg.lin0.model.1.weight": torch.ones(1, 4, 1, 1)})
    import_torch(path, tmp_path / "bundle")
    with np.load(tmp_path / "bundle/lpips_vgg.npz") as archive:
        assert archive.files == ["lin0.model.1.weight"]
    cdc_jax.load_codec(tmp_path / "bundle")


@pytest.mark.torch
def test_foreign_files_are_refused(torch, tmp_path):
    text, other = tmp_path / "text.pt", tmp_path / "other.pt"
    text.write_text("not a checkpoint")
    torch.save({"model": {"weight": torch.zeros(3)}}, other)
    torch.save([1, 2], tmp_path / "list.pt")
    for path in (text, other, tmp_path / "list.pt", tmp_path / "missing.pt", tmp_path):
        with pytest.raises(CheckpointError):
            import_torch(path, tmp_path / "bundle")


@pytest.mark.torch
def test_only_tensor_data_is_unpickled(torch, tmp_path):
    class Surprise:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"model": Surprise()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        import_torch(tmp_path / "evil.pt", tmp_path / "bundle")
    assert not (tmp_path / "owned").exists()


@pytest.mark.torch
def test_an_existing_folder_is_kept(fake_checkpoint, tmp_path):
    path = fake_checkpoint(tmp_path / "fake.pt")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/precious.txt").write_text("keep me")
    with pytest.raises(BundleError, match="exists"):
        import_torch(path, tmp_path / "bundle")
    assert (tmp_path / "bundle/precious.txt").read_text() == "keep me"
