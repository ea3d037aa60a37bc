"""`coding.npz` of format version 2: gains and checkerboard are stored, checked, and part of the fingerprint."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import BundleError
from tests.entropy.npz import check_damaged_files, rewrite
from tests.helpers.coding_weights import coding_weights, compact_coding_weights

_BUILD_SCRIPT = """
import hashlib
from cdc_jax.entropy.coding_model import CodingModel
from tests.helpers.coding_weights import compact_coding_weights
model = CodingModel.build(**compact_coding_weights())
digest = hashlib.sha256()
for array in model._arrays().values():
    digest.update(array.tobytes())
z = model.z_tables.low.reshape(1, 1, 3)
for array in model.latents.code(z, 9472, lambda step: (step.mean * 1000).astype("i4")):
    digest.update(array.tobytes())
print(model.fingerprint.hex(), digest.hexdigest())
"""

_BOARD = (
    "checkerboard_bits",
    *("anchor_kernel", "feature_kernel", "quality_kernel", "mix_bias", "rest_kernel", "rest_bias"),
)


@pytest.fixture
def saved(compact_model, tmp_path):
    path = tmp_path / "coding.npz"
    compact_model.save(path)
    return path


@pytest.mark.parametrize("board", [True, False])
@pytest.mark.parametrize("anchors", [1, 3, 64])
def test_round_trip(tmp_path, anchors, board):
    path = tmp_path / "coding.npz"
    model = CodingModel.build(**compact_coding_weights(anchors=anchors, board=board))
    model.save(path)
    loaded = CodingModel.load(path)
    assert loaded.fingerprint == model.fingerprint and loaded.format_version == 2
    assert (loaded.channels, loaded.latent_channels) == (3, 5)
    for (name, before), after in zip(model._arrays().items(), loaded._arrays().values(), strict=True):
        assert before.dtype == after.dtype, name
        np.testing.assert_array_equal(before, after, err_msg=name)
    assert (loaded.latents.checkerboard is not None) == board
    assert loaded.latents.gains.anchors.shape == (anchors, 5)
    loaded.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    z = np.random.default_rng(0).integers(-20, 21, (2, 2, 3)).astype(np.int32)
    for before, after in zip(*(one.latents.code(z, 77, _some_symbols) for one in (model, loaded)), strict=True):
        np.testing.assert_array_equal(before, after)


def _some_symbols(step) -> np.ndarray:
    return np.arange(step.mean.size, dtype=np.int32).reshape(step.mean.shape) % 7 - 3


def test_numpy_reads_the_file(saved, compact_model):
    with np.load(saved, allow_pickle=False) as arrays:
        assert arrays["format_version"] == 2
        assert {name: (array.dtype.str, array.shape) for name, array in arrays.items() if name in _BOARD} == {
            "checkerboard_bits": ("<i4", (3,)),
            "anchor_kernel": ("<i4", (4, 10, 4)),
            "feature_kernel": ("<i4", (4, 4)),
            "quality_kernel": ("<i4", (4,)),
            "mix_bias": ("<i8", (4,)),
            "rest_kernel": ("<i4", (4, 10)),
            "rest_bias": ("<i8", (10,)),
        }
        np.testing.assert_array_equal(arrays["log2_gains"], compact_model.latents.gains.anchors)
        assert arrays["kernel_0"].shape == (5, 5, 3, 4) and arrays["kernel_2"].shape == (3, 3, 4, 10)


def test_the_bytes_never_change(saved, compact_model):
    """Golden: exporting a model again, with any later version, gives the same coding.npz."""
    assert compact_model.fingerprint.hex() == "29e898f3"
    assert hashlib.sha256(saved.read_bytes()).hexdigest()[:16] == "b40a29773ef67dcb"


def test_bits_do_not_depend_on_the_cpu(check_same_on_every_cpu):
    check_same_on_every_cpu(_BUILD_SCRIPT)


def test_every_array_is_part_of_the_fingerprint(saved, compact_model):
    """Every change that leaves the file loadable changes the fingerprint."""
    content, found = saved.read_bytes(), {compact_model.fingerprint}
    arrays = {name: array.copy() for name, array in compact_model._arrays().items()}
    for name, array in arrays.items():
        if name == "format_version" or name.endswith("_offsets"):
            continue  # a file with another version does not load
        changed = array.copy()
        flat = changed.reshape(-1)
        if name.endswith("_counts"):
            largest = int(flat[: arrays[name.replace("counts", "offsets")][1]].argmax())
            flat[[largest, 0 if largest else 1]] += [-1, 1]  # keeps the table's sum
        elif name == "scales":
            flat[0] *= 0.999
        elif name == "fractional_bits":
            flat[0] -= 1
        elif name == "log2_gains":
            flat[-1] += 1
        elif name in ("scale_thresholds", "weight_bits", "checkerboard_bits"):
            flat[-1] += 1
        else:
            flat[0] += 1 if flat[0] < 0 else -1
        saved.write_bytes(content)
        rewrite(saved, **{name: changed})
        fingerprint = CodingModel.load(saved).fingerprint
        assert fingerprint not in found, name
        found.add(fingerprint)
    assert len(found) == len(arrays) - 3 + 1


def test_optional_parts_change_the_fingerprint():
    model = CodingModel.build(**compact_coding_weights(4, 4, 4))  # equal numbers of channels, as in format 1
    latents = model.latents
    others = [replace(latents, checkerboard=None), replace(latents, checkerboard=None, gains=None)]
    models = [model, *(replace(model, latents=one) for one in others)]
    assert len({model.fingerprint for model in models}) == 3
    assert [model.format_version for model in models] == [2, 2, 1]


def test_export_of_format_1_is_unchanged():
    model = CodingModel.build(*coding_weights(6))
    assert model.format_version == 1 and model.fingerprint.hex() == "f9107553"


def test_thresholds_are_between_the_scales(compact_model):
    """In log2 with 16 fractional bits, each scale of the table has its own index."""
    log2 = np.log2(compact_model.scales) * 65536
    index = np.searchsorted(compact_model.hyper_decoder.thresholds, np.rint(log2).astype(np.int64), side="right")
    np.testing.assert_array_equal(index, np.arange(256))
    middles = (log2[1:] + log2[:-1]) / 2
    assert np.abs(compact_model.hyper_decoder.thresholds - middles).max() <= 1


def test_channel_counts_are_independent():
    """In format 2 the channels of z, the channels of y and the network's width may differ."""
    for sizes in ({"channels": 1, "latents": 2, "hidden": 7}, {"channels": 9, "latents": 1, "hidden": 3}):
        model = CodingModel.build(**compact_coding_weights(**sizes))
        assert (model.channels, model.latent_channels) == (sizes["channels"], sizes["latents"])
        z = np.ones((1, 2, sizes["channels"]), np.int32)
        assert model.latents.code(z, 0, _some_symbols).symbols.shape == (4, 8, sizes["latents"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"drop": [name]}, name) for name in ("log2_gains", *_BOARD)),
        ({"drop": [*_BOARD, "log2_gains"]}, "log2_gains"),
        ({"drop": _BOARD[1:]}, "anchor_kernel"),
        ({"surplus": np.int32(1)}, "surplus"),
        ({"format_version": np.int32(1)}, "log2_gains"),
        ({"format_version": np.int32(3)}, "upgrade"),
        ({"format_version": np.int32(0)}, "upgrade"),
        ({"format_version": np.int64(2)}, "upgrade"),
        ({"log2_gains": np.zeros((3, 4), np.int32)}, "4 channels"),
        ({"log2_gains": np.zeros((0, 5), np.int32)}, "gains"),
        ({"log2_gains": np.zeros((65, 5), np.int32)}, "gains"),
        ({"log2_gains": np.zeros(5, np.int32)}, "gains"),
        ({"log2_gains": np.zeros((3, 5), np.int64)}, "log2_gains"),
        ({"log2_gains": np.zeros((3, 5), np.float32)}, "log2_gains"),
        ({"log2_gains": np.full((3, 5), (7 << 16) + 1, np.int32)}, "gains"),
        ({"log2_gains": np.full((3, 5), -(2**31), np.int32)}, "gains"),
        ({"log2_gains": np.array([[1] * 5, [0] * 5], np.int32)}, "gains"),
        ({"checkerboard_bits": np.array([18, 16], np.int32)}, "3 entries"),
        ({"checkerboard_bits": np.array([[18, 16, 18]], np.int32)}, "3 entries"),
        ({"checkerboard_bits": np.array([18, 17, 18], np.int32)}, "fractional bits"),
        ({"checkerboard_bits": np.array([31, 16, 18], np.int32)}, "weight bits"),
        ({"checkerboard_bits": np.array([18, 0, 0], np.int32)}, "weight bits"),
        ({"checkerboard_bits": np.array([18, 0, 1], np.int32)}, "left"),
        ({"anchor_kernel": np.zeros((4, 8, 4), np.int32)}, "fit"),
        ({"anchor_kernel": np.zeros((4, 11, 4), np.int32)}, "fit"),
        ({"anchor_kernel": np.zeros((5, 10, 4), np.int32)}, "4, 2 channels"),
        ({"anchor_kernel": np.zeros((4, 10, 0), np.int32)}, "fit"),
        ({"anchor_kernel": np.full((4, 10, 4), 1 << 17, np.int32)}, "18 bits"),
        ({"anchor_kernel": np.zeros((4, 10, 4), np.int64)}, "anchor_kernel"),
        ({"quality_kernel": np.zeros(5, np.int32)}, "fit"),
        ({"quality_kernel": np.zeros((1, 4), np.int32)}, "fit"),
        ({"quality_kernel": np.full(4, -(1 << 17), np.int32)}, "18 bits"),
        ({"feature_kernel": np.zeros((3, 4), np.int32)}, "fit"),
        ({"mix_bias": np.full(4, 1 << 53)}, "2\\^53"),
        ({"mix_bias": np.zeros(4, np.int32)}, "mix_bias"),
        ({"rest_kernel": np.zeros((4, 8), np.int32)}, "fit"),
        ({"rest_bias": np.zeros(9, np.int64)}, "bias"),
        ({"rest_bias": np.full(10, -(2**63))}, "2\\^53"),
        ({"kernel_2": np.zeros((3, 3, 4, 9), np.int32)}, "fit|bias"),
        ({"kernel_2": np.zeros((3, 3, 4, 8), np.int32), "bias_2": np.zeros(8, np.int64)}, "channels"),
        ({"kernel_1": np.zeros((5, 5, 4, 5), np.int32), "bias_1": np.zeros(5, np.int64)}, "fit"),
        ({"fractional_bits": np.array([16, 16, 15, 16], np.int32)}, "bits"),
        ({"fractional_bits": np.array([16, 16, 16, 15], np.int32)}, "bits"),
        ({"scale_thresholds": np.arange(255, 0, -1, dtype=np.int32)}, "thresholds"),
        ({"z_low": np.zeros(5, np.int32)}, "z tables"),
    ],
)
def test_an_inconsistent_file_is_refused(saved, changes, message):
    rewrite(saved, **changes)
    with pytest.raises(BundleError, match=message) as raised:
        CodingModel.load(saved)
    assert "\n" not in str(raised.value)


def test_an_odd_number_of_outputs_is_refused(saved, compact_model):
    """The hyper decoder's output must have as many means as scales."""
    kernel, bias = (compact_model._arrays()[name] for name in ("kernel_2", "bias_2"))
    odd = {"kernel_2": np.concatenate([kernel, kernel[..., :1]], axis=-1), "bias_2": np.append(bias, bias[:1])}
    rewrite(saved, **odd)
    with pytest.raises(BundleError):
        CodingModel.load(saved)


def test_damaged_files_are_refused_or_harmless(saved, compact_model):
    content = saved.read_bytes()
    rng, new = np.random.default_rng(0), content.index(b"log2_gains.npy")
    positions = [*rng.integers(0, len(content), 40), *rng.integers(new - 30, len(content), 300)]
    check_damaged_files(saved, compact_model, positions)
