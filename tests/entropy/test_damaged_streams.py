import numpy as np
import pytest

from cdc_jax.entropy.coder import MAX_ABS_SYMBOL, EntropyCoder
from cdc_jax.errors import BitstreamError
from tests.entropy.cases import typical_symbols


def test_only_the_encoders_bytes_decode(coder):
    z, y, scale_index = typical_symbols(coder, 2, 2)
    stream = coder.encode(z, y, scale_index)
    for variant in (stream + b"\0", stream + b"\x01", stream + bytes(100), b"\0", b""):
        with pytest.raises(BitstreamError, match="corrupt"):
            coder.decode(variant, z.shape)
    for shape in ((3, 2, 6), (1, 2, 6), (2, 5, 6)):
        with pytest.raises(BitstreamError, match="corrupt"):
            coder.decode(stream, shape)


def _decodes_or_is_refused(coder: EntropyCoder, stream: bytes, shape) -> bool:
    try:
        decoded = coder.decode(stream, shape)
    except BitstreamError:
        return False
    assert coder.encode(decoded.z, decoded.y, decoded.scale_index) == stream
    return True


def test_every_flipped_bit(coder):
    """Most are refused. A corrupt stream that is accepted encodes to itself: it is the stream of another image."""
    z, y, scale_index = typical_symbols(coder, 2, 2)
    stream = coder.encode(z, y, scale_index)
    accepted = 0
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        accepted += _decodes_or_is_refused(coder, bytes(flipped), z.shape)
    assert accepted < 8 * len(stream) / 3


def test_every_truncation(coder):
    z, y, scale_index = typical_symbols(coder, 2, 2)
    stream = coder.encode(z, y, scale_index)
    accepted = sum(_decodes_or_is_refused(coder, stream[:n], z.shape) for n in range(len(stream)))
    assert accepted < len(stream) / 10


def test_random_bytes(coder, wide_coder):
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(600):
        each = coder if rng.random() < 0.5 else wide_coder
        stream = rng.bytes(int(rng.integers(0, 120)))
        accepted += _decodes_or_is_refused(each, stream, (1, 1, each.model.channels))
    assert accepted < 60


def test_symbols_beyond_the_limit_are_refused_in_both_directions(coder, monkeypatch):
    z, y, scale_index = typical_symbols(coder, 1, 1)
    y[0, 0, 0] = MAX_ABS_SYMBOL + 1
    with pytest.raises(ValueError, match="clip"):
        coder.encode(z, y, scale_index)
    monkeypatch.setattr("cdc_jax.entropy.coder.MAX_ABS_SYMBOL", MAX_ABS_SYMBOL + 1)
    stream = coder.encode(z, y, scale_index)
    monkeypatch.undo()
    with pytest.raises(BitstreamError, match="no encoder"):
        coder.decode(stream, z.shape)


def _bad_arguments():
    z, y = np.zeros((1, 1, 6), np.int32), np.zeros((4, 4, 6), np.int32)
    index = np.zeros((4, 4, 6), np.uint8)
    return [
        (z[..., :5], y, index),
        (z[0], y, index),
        (z[:0], y[:0], index[:0]),
        (z, y[:3], index),
        (z, y, index[:3]),
        (z.astype(np.int64), y, index),
        (z, y.astype(np.float32), index),
        (z, y, index.astype(np.int32)),
        (z - np.int32(MAX_ABS_SYMBOL + 1), y, index),
        (z, y + np.int32(-(2**31)), index),
    ]


@pytest.mark.parametrize("arguments", _bad_arguments())
def test_bad_arguments(coder, arguments):
    with pytest.raises(ValueError, match="z|y|[Ss]ymbols"):
        coder.encode(*arguments)


@pytest.mark.parametrize("shape", [(0, 1, 6), (1, -1, 6), (1, 1, 5)])
def test_bad_shapes(coder, shape):
    with pytest.raises(ValueError, match="shape"):
        coder.decode(b"", shape)
