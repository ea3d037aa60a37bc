"""A variable-rate model: symbols survive the round trip at every quality, for all kinds and sizes of images."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cdc_jax
from cdc_jax.cli import main
from cdc_jax.codec.encoding import encode_latents
from cdc_jax.entropy.integer_checkerboard import anchor_mask
from cdc_jax.errors import BitstreamError, ConfigError
from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.images import pad_to_multiple
from tests.helpers.compact import COMPACT, save_compact_bundle

QUALITIES = {0: 0, 0.004: 1, 10.5: 2688, 50: 12800, 99.996: 25599, 100: 25600}  # quality: level
SIZES = [(1, 1), (17, 33), (64, 64), (65, 127), (200, 130)]


def smooth(height: int, width: int) -> np.ndarray:
    """Slow color gradients."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 20), np.cos(columns / 30), np.sin((rows + columns) / 9)], axis=-1)
    return (127 + 100 * waves).astype(np.uint8)


def flat(height: int, width: int) -> np.ndarray:
    """One color."""
    return np.full((height, width, 3), (250, 3, 90), np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    """Uniform noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def extreme(height: int, width: int) -> np.ndarray:
    """Noise that is only black and white."""
    return np.random.default_rng(1).integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)


def expected_symbols(codec, image: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """z and y from the float latents, with means from the integer networks, pass by pass."""
    latents = codec.coding.latents
    y, z = (np.asarray(part[0]) for part in encode_latents(codec.config, codec.params, pad_to_multiple(image)[None]))
    z = np.rint(z - codec.params["compressor.prior.medians"]).astype(np.int32)
    features, output = latents.hyper_decoder.decode_with_features(z)
    unit, channels = 2.0 ** -latents.hyper_decoder.layers[2].output_bits, y.shape[2]
    gains = latents.gains.at(level, latents.hyper_decoder.layers[2].output_bits)
    gain = np.exp2(gains.log2 / 65536).astype(np.float32)

    def rounded(output):
        return np.rint((y - (output[..., :channels] * unit).astype(np.float32)) * gain).astype(np.int32)

    first = rounded(output)
    if latents.checkerboard is None:
        return z, first
    offset = np.floor(first * gains.inverse.astype(np.float64) / 2**16 + 0.5).astype(np.int32)
    corrected = latents.checkerboard.correct(output, features, output[..., :channels] + offset, first, level)
    return z, np.where(anchor_mask(*y.shape[:2])[..., None], first, rounded(corrected))


@pytest.mark.parametrize("kind", [smooth, flat, noise, extreme])
@pytest.mark.parametrize("size", SIZES)
def test_symbols_read_are_symbols_written(compact_codec, kind, size):
    image = kind(*size)
    latents = compact_codec.analyze(image)
    for quality, level in QUALITIES.items():
        data = compact_codec.write(latents, quality=quality)
        header = cdc_file.unpack(data)
        assert (header.version, header.level, header.chunks) == (2, level, ())
        z, y = compact_codec.read_symbols(data)
        expected_z, expected_y = expected_symbols(compact_codec, image, level)
        np.testing.assert_array_equal(z, expected_z)
        np.testing.assert_array_equal(y, expected_y)
        assert y.shape == (4 * z.shape[0], 4 * z.shape[1], 12) and z.shape[2] == 6
        assert len(data) - len(header.stream) <= 23
    assert data == compact_codec.compress(image, quality=quality)


@given(st.floats(0, 100))
def test_any_quality(compact_codec, quality):
    latents = _analyzed(compact_codec)
    data = compact_codec.write(latents, quality=quality)
    level = cdc_file.unpack(data).level
    assert abs(level / 256 - quality) <= 1 / 512
    np.testing.assert_array_equal(compact_codec.read_symbols(data)[0], latents.z)


_ANALYZED: dict[int, object] = {}


def _analyzed(codec):
    """The latents of one small image, computed once per codec."""
    if id(codec) not in _ANALYZED:
        _ANALYZED[id(codec)] = codec.analyze(noise(40, 60))
    return _ANALYZED[id(codec)]


def test_the_cases_use_all_of_the_coder(compact_codec):
    """The cases above contain large symbols, escapes and many scales, and ŷ is rarely clipped."""
    kinds = {kind.__name__: kind(200, 130) for kind in (smooth, noise, extreme)}
    indices, escapes, largest = set(), 0, 0
    for image in kinds.values():
        for quality in (0, 100):
            symbols = compact_codec.decode_symbols(compact_codec.compress(image, quality=quality))
            tables = compact_codec.coding.y_tables
            low = tables.low[symbols.scale_index]
            escapes += np.count_nonzero((symbols.y < low) | (symbols.y >= low + tables.sizes[symbols.scale_index]))
            indices |= set(np.unique(symbols.scale_index).tolist())
            largest = max(largest, int(np.abs(symbols.y).max()))
            assert np.count_nonzero(symbols.y) > symbols.y.size / 4
    assert len(indices) > 150 and escapes > 5 and largest > 30


@pytest.mark.parametrize("kind", [smooth, noise])
def test_files_grow_with_the_quality(compact_codec, kind):
    """No size falls by more than 0.1 %, in steps of 2 for bytes and of 0.5 for ideal bits."""
    latents = compact_codec.analyze(kind(200, 130))
    sizes = np.array([len(compact_codec.write(latents, quality=quality)) for quality in range(0, 101, 2)])
    assert (sizes[1:] >= 0.999 * sizes[:-1]).all() and sizes[-1] > 2 * sizes[0]
    bits = [sum(compact_codec.part_bits(latents, quality=quality / 2)) for quality in range(201)]
    assert (np.array(bits[1:]) >= 0.999 * np.array(bits[:-1])).all()
    for quality in (0, 33, 100):
        written = 8 * len(compact_codec.write(latents, quality=quality))
        assert 0 < written - sum(compact_codec.part_bits(latents, quality=quality)) < 8 * 24


def test_the_default_is_50(compact_codec):
    latents = _analyzed(compact_codec)
    data = compact_codec.compress(noise(40, 60))
    for quality in (None, 50, 50.0, np.float32(50), np.int64(50)):
        assert compact_codec.write(latents, quality=quality) == data


@pytest.mark.parametrize(
    "quality",
    [-1, -0.001, 100.001, 100.1, 10**400, float("nan"), float("inf"), "x", "50", True, np.True_, 50j, [50], b"5",
     np.zeros((30, 30)), np.float32("nan"), np.complex64(50)],
)  # fmt: skip
def test_qualities_that_do_not_exist(compact_codec, quality):
    calls = [
        lambda: compact_codec.compress(noise(8, 8), quality=quality),
        lambda: compact_codec.write(_analyzed(compact_codec), quality=quality),
        lambda: compact_codec.part_bits(_analyzed(compact_codec), quality=quality),
        lambda: compact_codec.compress_batch([noise(8, 8)], quality=quality),
        lambda: compact_codec.estimate_bits(noise(8, 8), quality=quality),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="quality") as raised:
            call()
        assert "\n" not in str(raised.value)


def test_a_model_of_one_rate_has_no_quality(random_codec):
    for call in (random_codec.compress, random_codec.estimate_bits):
        with pytest.raises(ConfigError, match="one rate"):
            call(noise(8, 8), quality=50)
    with pytest.raises(ConfigError, match="one rate"):
        random_codec.write(random_codec.analyze(noise(8, 8)), quality=50)
    assert cdc_file.unpack(random_codec.compress(noise(8, 8))).version == 1


@pytest.mark.parametrize(
    "changes", [{"rate_anchors": 1}, {"checkerboard": False}, {"rate_anchors": 1, "checkerboard": False}]
)
def test_models_with_parts_left_out(tmp_path, changes):
    """A single-rate model writes only format 2 at level 0; a model without checkerboard has one pass."""
    codec = cdc_jax.load_codec(save_compact_bundle(tmp_path / "b", dataclasses.replace(COMPACT, **changes)))
    image = smooth(60, 50)
    rates = {None: 0} if codec.config.rate_anchors == 1 else {0: 0, 37.25: 9536}
    for quality, level in rates.items():
        data = codec.compress(image, quality=quality)
        header = cdc_file.unpack(data)
        assert (header.version, header.level) == (2, level)
        for actual, expected in zip(codec.read_symbols(data), expected_symbols(codec, image, level), strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert codec.decompress(data).shape == image.shape
    if codec.config.rate_anchors == 1:
        with pytest.raises(ConfigError, match="one rate"):
            codec.compress(image, quality=50)
        other = cdc_file.pack(header.fingerprint, header.height, header.width, header.stream, level=1)
        with pytest.raises(BitstreamError, match="quality"):
            codec.read_symbols(other)


def _rewritten(data: bytes, **changes) -> bytes:
    header = cdc_file.unpack(data)
    fields = {"level": header.level, "chunks": header.chunks} | changes
    return cdc_file.pack(header.fingerprint, header.height, header.width, header.stream, **fields)


def test_chunks_are_skipped(compact_codec, random_codec):
    """With a variable-rate model, and with a single-rate model, whose files with chunks have format 2."""
    chunks = (Chunk(b"Zzz9", bytes(1000)), Chunk(b"new0", b"of a later version"))
    for codec, level in ((compact_codec, 12800), (random_codec, None)):
        bare = codec.compress(noise(40, 60))
        full = _rewritten(bare, level=level, chunks=chunks)
        assert cdc_file.unpack(full).version == 2 and len(full) > len(bare) + 1000
        for actual, expected in zip(codec.read_symbols(full), codec.read_symbols(bare), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_formats_that_the_model_does_not_write(compact_codec, random_codec):
    """Format 1 for a variable-rate model; for a model of format 1, format 2 without chunks or with a quality."""
    compact, random = compact_codec.compress(noise(40, 60)), random_codec.compress(noise(40, 60))
    files = [
        (compact_codec, _rewritten(compact, level=None)),
        (random_codec, _rewritten(random, level=0)),
        (random_codec, _rewritten(random, level=1, chunks=(Chunk(b"abcd", b""),))),
    ]
    for codec, data in files:
        with pytest.raises(BitstreamError, match="format or quality"):
            codec.read_symbols(data)


def test_a_wrong_quality_in_a_file_is_detected(compact_codec):
    """A file with the quality of one file and the stream of another does not encode to the same bytes."""
    data = compact_codec.compress(smooth(200, 130), quality=50)
    for level in (0, 12000, 25600):
        with pytest.raises(BitstreamError):
            compact_codec.read_symbols(_rewritten(data, level=level))


def test_a_quality_above_100_in_a_file(compact_codec, compact_bundle, tmp_path, capfd):
    """Every command reports it as corrupt, in one line and with exit code 1."""
    data = bytearray(compact_codec.compress(noise(40, 60), quality=100))
    assert data[10:12] == (25600).to_bytes(2, "big")
    data[10:12] = (25601).to_bytes(2, "big")
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "big")
    with pytest.raises(BitstreamError, match="quality above 100"):
        compact_codec.decompress(bytes(data))
    path = tmp_path / "wrong.cdc"
    path.write_bytes(data)
    commands = (
        ["info", path],
        ["verify", path, "--model", compact_bundle],
        ["decompress", path, "--model", compact_bundle],
    )
    for command in commands:
        assert main([*map(str, command)]) == 1
        out, err = capfd.readouterr()
        assert out == "" and "quality above 100" in err and err.count("\n") == 1
