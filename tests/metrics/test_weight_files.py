"""Files of weights are read without running code in them."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from cdc_jax.errors import CheckpointError
from cdc_jax.io.torch_file import read_torch_file
from cdc_jax.metrics.weights import read_array_pickle, read_npz


class Command:
    """An object that makes a folder when it is unpickled in the usual way."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_torchs_files_are_read_without_torch(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "plain": base,
        "transposed": base.T,  # the same storage with other strides
        "part": base[1:, 2:5],
        "double": torch.linspace(0, 1, 5, dtype=torch.float64),
        "count": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "empty": torch.zeros(0, 3),
    }
    path = tmp_path / "weights.pth"
    torch.save({**tensors, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    read = read_torch_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(read[name], tensor.detach().numpy()) and read[name].shape == tuple(tensor.shape)


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_torch_files_are_refused(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.ones(300)}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for length in (0, 5, len(data) // 2, len(data) - 100):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_torch_file(path)


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_what_lies_beside_the_tensors_does_not_matter(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    beside = {"size": torch.ones(2).shape, "device": torch.device("cpu"), "held": [torch.ones(3)], "step": 7}
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {"w": torch.arange(6.0)}, **beside}, path, _use_new_zipfile_serialization=zipped)
    tensors = read_torch_file(path, lambda loaded: loaded["model"])
    assert tensors.keys() == {"w"} and np.array_equal(tensors["w"], np.arange(6.0))


@pytest.mark.torch
def test_a_tensor_is_no_larger_than_what_is_stored_of_it(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(1).expand(1 << 40)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="larger than its storage"):
        read_torch_file(tmp_path / "weights.pth")


def test_a_small_file_does_not_take_much_memory(tmp_path):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
    with pytest.raises(CheckpointError, match="compressed"):
        read_torch_file(path)
    path.write_bytes(b"\x80\x02}r" + (2**30).to_bytes(4, "little") + b".")  # object 2³⁰ of the pickle
    with pytest.raises(CheckpointError, match="does not begin like one"):
        read_torch_file(path)


def test_nothing_in_a_pickle_is_run(tmp_path):
    folder = tmp_path / "made"
    data = pickle.dumps({"w": Command(folder)}, protocol=2)
    (tmp_path / "legacy.pth").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "zipped.pth", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    for name, read in (("legacy.pth", read_torch_file), ("zipped.pth", read_torch_file),
                       ("legacy.pth", read_array_pickle)):
        with pytest.raises(CheckpointError, match="mkdir"):
            read(tmp_path / name)
    assert not folder.exists()


def test_array_pickles_hold_floats_only(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(pickle.dumps({"net": {"w": np.ones((2, 3), np.float32)}}))
    assert read_array_pickle(path)["net/w"].shape == (2, 3)
    for value in ({"w": np.array([None])}, {"w": "text"}, {"w": np.ones(3, int)}, [1]):
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(CheckpointError, match="not an array of floats"):
            read_array_pickle(path)


@pytest.mark.parametrize("read", [read_torch_file, read_array_pickle, read_npz])
def test_missing_and_foreign_files_are_refused(read, tmp_path):
    (tmp_path / "text").write_text("not weights")
    for path in (tmp_path / "text", tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError):
            read(path)
