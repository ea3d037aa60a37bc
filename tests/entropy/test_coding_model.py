import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.latents import LatentModel
from cdc_jax.errors import BundleError
from tests.entropy.npz import check_damaged_files, rewrite

_BUILD_SCRIPT = """
import hashlib
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.latents import LatentModel
from tests.helpers.coding_weights import coding_weights
model = CodingModel.build(*coding_weights(6))
digest = hashlib.sha256()
for array in model._arrays().values():
    digest.update(array.tobytes())
mean, scale_index = model.hyper_decoder.decode(model.z_tables.low.reshape(1, 1, 6))
digest.update(mean.tobytes() + scale_index.tobytes())
print(model.fingerprint.hex(), digest.hexdigest())
"""


@pytest.fixture
def saved(small_model, tmp_path):
    path = tmp_path / "coding.npz"
    small_model.save(path)
    return path


def test_round_trip(small_model, saved):
    loaded = CodingModel.load(saved)
    assert loaded.fingerprint == small_model.fingerprint and len(loaded.fingerprint) == 4
    for (name, before), after in zip(small_model._arrays().items(), loaded._arrays().values(), strict=True):
        assert before.dtype == after.dtype, name
        np.testing.assert_array_equal(before, after, err_msg=name)
    z = np.random.default_rng(0).integers(-20, 21, (3, 2, 6)).astype(np.int32)
    for before, after in zip(small_model.hyper_decoder.decode(z), loaded.hyper_decoder.decode(z), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_same_content_gives_the_same_bytes(saved, tmp_path, coding_weights):
    again, resaved = tmp_path / "again.npz", tmp_path / "resaved.npz"
    CodingModel.build(*coding_weights(6)).save(again)
    CodingModel.load(saved).save(resaved)
    assert saved.read_bytes() == again.read_bytes() == resaved.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.npz", "coding.npz", "resaved.npz"]


def test_other_weights_give_another_fingerprint(small_model, coding_weights):
    fingerprints = {small_model.fingerprint}
    prior, layers = coding_weights(6)
    layers[2][1][0] += np.float32(0.01)
    fingerprints.add(CodingModel.build(prior, layers).fingerprint)
    prior, layers = coding_weights(6)
    prior["biases"][0][0, 0] += np.float32(0.01)
    fingerprints.add(CodingModel.build(prior, layers).fingerprint)
    net = small_model.hyper_decoder
    latents = LatentModel(replace(net, medians=net.medians + np.int32(1)))
    fingerprints.add(replace(small_model, latents=latents).fingerprint)
    assert len(fingerprints) == 4


def test_numpy_reads_the_file(saved, small_model):
    with np.load(saved, allow_pickle=False) as arrays:
        assert arrays["format_version"] == 1
        np.testing.assert_array_equal(arrays["z_counts"], small_model.z_tables.counts)
        assert arrays["kernel_2"].shape == (3, 3, 6, 12) and arrays["bias_1"].dtype == np.int64
    assert zipfile.ZipFile(saved).testzip() is None


def test_the_bytes_never_change(saved, small_model):
    """Golden: importing a checkpoint again, with any later version, gives the same coding.npz."""
    assert small_model.fingerprint.hex() == "f9107553"
    assert hashlib.sha256(saved.read_bytes()).hexdigest()[:16] == "654b8a205a8a8763"


def test_bits_do_not_depend_on_the_cpu(check_same_on_every_cpu):
    check_same_on_every_cpu(_BUILD_SCRIPT)


def test_the_coding_model_imports_no_jax(request):
    script = (
        "import sys, cdc_jax.io.cdc_file, cdc_jax.entropy.coder\n"
        "assert 'jax' not in sys.modules and 'flax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=request.config.rootpath, timeout=60)


def test_loading_what_numpy_wrote(saved, small_model):
    rewrite(saved)
    assert CodingModel.load(saved).fingerprint == small_model.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": ["z_low"]}, "z_low"),
        ({"drop": ["format_version"]}, "format_version"),
        ({"surplus": np.int32(1)}, "surplus"),
        ({"format_version": np.int32(3)}, "upgrade"),
        ({"format_version": np.array([1], np.int32)}, "upgrade"),
        ({"format_version": np.array("1")}, "upgrade"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        ({"scales": np.zeros(256, np.float32)}, "scales"),
        ({"scales": np.zeros(256)}, "scales"),
        ({"scales": np.full(256, np.nan)}, "scales"),
        ({"scales": np.arange(1.0, 10.0)}, "scales"),
        ({"kernel_0": np.zeros((5, 5, 6, 6), np.int64)}, "kernel_0"),
        ({"kernel_0": np.full((5, 5, 6, 6), 1 << 17, np.int32)}, "18 bits"),
        ({"kernel_0": np.zeros((5, 5, 0, 0), np.int32)}, "channels"),
        ({"bias_2": np.full(12, 1 << 60, np.int64)}, "2\\^53"),
        ({"fractional_bits": np.array([16, 16, 16], np.int32)}, "fractional_bits"),
        ({"fractional_bits": np.array([17, 16, 16, 16], np.int32)}, "fractional bits"),
        ({"weight_bits": np.array([31, 20, 20], np.int32)}, "weight bits"),
        ({"weight_bits": np.array([[20, 20, 20]], np.int32)}, "weight_bits"),
        ({"medians": np.zeros(5, np.int32)}, "channels|layers"),
        ({"kernel_2": np.zeros((3, 3, 6, 10), np.int32), "bias_2": np.zeros(10, np.int64)}, "equally many channels"),
        ({"z_low": np.zeros(5, np.int32)}, "z tables"),
        ({"y_offsets": np.arange(257, dtype=np.int32)}, "y tables"),
        ({"y_low": np.full(256, 1 << 30, np.int32)}, "y table"),
        ({"z_counts": np.ones(10, np.int32)}, "z tables"),
        ({"scale_thresholds": np.arange(255, 0, -1, dtype=np.int32)}, "thresholds"),
        ({"medians": np.array([None] * 6, object)}, "readable"),
    ],
)
def test_an_inconsistent_file_is_refused(saved, changes, message):
    rewrite(saved, **changes)
    with pytest.raises(BundleError, match=message):
        CodingModel.load(saved)


def test_damaged_files_are_refused_or_harmless(saved, small_model):
    content = saved.read_bytes()
    rng, directory = np.random.default_rng(0), content.index(b"PK\x01\x02")
    positions = [*rng.integers(0, len(content), 60), *range(0, 140), *rng.integers(directory, len(content), 200)]
    check_damaged_files(saved, small_model, positions)


def test_missing_file(tmp_path):
    for path in (tmp_path / "coding.npz", tmp_path):
        with pytest.raises(BundleError, match="does not exist"):
            CodingModel.load(path)


def test_a_failed_save_leaves_nothing(small_model, tmp_path):
    target = tmp_path / "coding.npz"
    target.mkdir()
    with pytest.raises(OSError):
        small_model.save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["coding.npz"]


def test_arrays_are_read_only(saved):
    loaded = CodingModel.load(saved)
    for array in (loaded.z_tables.counts, loaded.y_tables.counts, loaded.hyper_decoder.layers[0].kernel):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
