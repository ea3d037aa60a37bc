"""Files that were written when a format version was released, and that every later program must read.

A failure here means that users' files no longer open. The files are never made again: see `tests/golden_files/make.py`.
"""

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import cdc_jax
from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.io import cdc_file
from tests.helpers import python_decoder, python_latents
from tests.helpers.golden_files import (
    FOLDER,
    PAIRS,
    VERSIONS,
    coding_lists,
    golden_file,
    golden_symbols,
    unpack_bundle,
)
from tests.helpers.machines import require_other_python

# The beginning of the SHA-256 of each version's coding.npz, files and symbols.
DIGESTS = {"v1": "6bdd78a1c41799f4", "v2": "b7fd17c1800ab105"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    """Every version's bundle, unpacked."""
    return {version: unpack_bundle(version, tmp_path_factory.mktemp(version)) for version in DIGESTS}


def test_every_format_version_has_golden_files():
    assert set(VERSIONS) == set(DIGESTS) == {path.name for path in FOLDER.glob("v*")}


@pytest.mark.parametrize("version", DIGESTS)
def test_golden_files_are_unchanged(bundles, version):
    digest = hashlib.sha256((bundles[version] / "coding.npz").read_bytes())
    for path in sorted((FOLDER / version).glob("*.cdc")):
        digest.update(path.read_bytes())
        for array in golden_symbols(version, path.stem).values():
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[version]


@pytest.mark.parametrize("version", DIGESTS)
def test_golden_files_cover_the_format(version):
    files = {name: cdc_file.unpack(golden_file(each, name)) for each, name in PAIRS if each == version}
    sizes = {name: (file.height, file.width) for name, file in files.items()}
    assert sizes["pixel"] == (1, 1) and sizes["odd_size"] == (37, 53)
    assert sizes["noise"] == (70, 130)  # more than one cell, and a side of two bytes
    escaped = golden_symbols(version, "escapes")["y"].astype(np.int64)
    for sign in (1, -1):
        magnitude = (sign * escaped)[sign * escaped > 0]
        assert set(range(24)) == set(np.log2(magnitude).astype(int).tolist())
    indices = np.concatenate([golden_symbols(version, name)["scale_index"].reshape(-1) for name in files])
    assert len(np.unique(indices)) > 100 and indices.max() > 230
    assert {file.version for file in files.values()} == {int(version[1:])}


def test_version_2_covers_qualities_chunks_and_networks(bundles):
    files = {name: cdc_file.unpack(golden_file("v2", name)) for version, name in PAIRS if version == "v2"}
    qualities = {name: file.quality for name, file in files.items()}
    assert {0, 37.25, 100} <= set(qualities.values()) and qualities["pixel"] == 37.25
    assert [chunk.type for chunk in files["chunks"].chunks] == [b"Abc1", b"test"]
    assert len(files["chunks"].chunks[1].data) == 200  # a length of two bytes
    assert all(not file.chunks for name, file in files.items() if name != "chunks")
    coding = CodingModel.load(bundles["v2"] / "coding.npz")
    assert coding.latents.checkerboard is not None and len(coding.latents.gains.anchors) == 4
    sizes = coding.channels, coding.hyper_decoder.layers[0].kernel.shape[3], coding.latent_channels
    assert len(set(sizes)) == 3  # z's channels, the network's width and y's channels differ


@pytest.mark.parametrize(("version", "name"), PAIRS)
def test_the_coder_reads_and_writes_golden_files(bundles, version, name):
    model = CodingModel.load(bundles[version] / "coding.npz")
    file, expected = golden_file(version, name), golden_symbols(version, name)
    header = cdc_file.unpack(file)
    assert header.fingerprint == model.fingerprint
    coder = EntropyCoder(model)
    actual = coder.decode(header.stream, expected["z"].shape, header.level)
    for key, array in expected.items():
        assert getattr(actual, key).dtype == array.dtype
        np.testing.assert_array_equal(getattr(actual, key), array, err_msg=key)
    stream = coder.encode(expected["z"], expected["y"], expected["scale_index"])
    fields = {} if version == "v1" else {"level": header.level, "chunks": header.chunks}
    assert cdc_file.pack(model.fingerprint, header.height, header.width, stream, **fields) == file


@pytest.mark.parametrize(("version", "name"), PAIRS)
def test_a_decoder_in_plain_python_reads_golden_files(bundles, version, name):
    """The decoder is written from docs/format.md alone; it uses NumPy only to load the tables."""
    coding, families = coding_lists(bundles[version])
    file = python_decoder.read_container(golden_file(version, name))
    rows, columns, channels = -(-file.height // 64), -(-file.width // 64), len(coding["medians"])

    def passes(z: list[int]) -> python_decoder.Passes:
        cells = [z[i : i + channels] for i in range(0, len(z), channels)]
        return python_latents.passes(
            coding, [cells[i : i + columns] for i in range(0, len(cells), columns)], file.level
        )

    z, y, latents = python_decoder.read_symbols(file.stream, *families, (rows, columns, channels), passes)
    expected = {key: array.reshape(-1) for key, array in golden_symbols(version, name).items()}
    assert z == expected["z"].tolist() and y == expected["y"].tolist()
    assert latents.scale_indices == expected["scale_index"].tolist()
    assert latents.means == [Fraction(value) for value in expected["mean"].tolist()]
    if version == "v2":
        assert latents.y_hat == [Fraction(value) for value in expected["y_hat"].tolist()]
    container = cdc_file.unpack(golden_file(version, name))
    assert (file.level, list(file.chunks.items())) == (
        container.level,
        [(chunk.type, chunk.data) for chunk in container.chunks],
    )


@pytest.mark.parametrize("version", DIGESTS)
def test_a_codec_opens_the_bundle(bundles, version):
    codec = cdc_jax.load_codec(bundles[version])
    for each, name in PAIRS:
        if each == version:
            z, y = codec.read_symbols(golden_file(version, name))
            expected = golden_symbols(version, name)
            assert np.array_equal(z, expected["z"]) and np.array_equal(y, expected["y"])
    image = codec.decompress(golden_file(version, "odd_size"), steps=1)
    assert image.shape == (37, 53, 3)


@pytest.mark.parametrize("version", DIGESTS)
def test_another_python_opens_golden_files(bundles, version):
    """It has another JAX and orbax, so this also tests the format of the weights."""
    files = [FOLDER / version / f"{name}.cdc" for each, name in PAIRS if each == version]
    output = require_other_python().run("-m", "cdc_jax", "verify", *files, "--model", bundles[version])
    assert output.count("agrees") == len(files) >= 5
