"""The shipped model: its files open in every later version, its rate follows the quality, and its pixels stay close."""

import hashlib

import numpy as np
import pytest
from skimage import data

import cdc_jax
from cdc_jax.metrics.distortion import psnr_db
from tests.helpers.golden_files import FOLDER

GOLDEN = FOLDER / "shipped" / "coffee.cdc"
SYMBOLS = "862ece9806fe681e"  # of z and y in GOLDEN
PSNR_DB = 27.40  # of GOLDEN in one step


@pytest.fixture(scope="module")
def codec():
    return cdc_jax.load_codec()


def test_its_golden_file_has_the_same_symbols(codec):
    """A failure means that users' files no longer open: a later model must keep this coding.npz (`freeze_entropy`)."""
    digest = hashlib.sha256()
    for symbols in codec.read_symbols(GOLDEN.read_bytes()):
        digest.update(symbols.astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == SYMBOLS


def test_its_golden_file_looks_the_same(codec):
    """A later model may decode it better, not worse."""
    assert psnr_db(data.coffee(), codec.decompress(GOLDEN.read_bytes())) > PSNR_DB - 0.05


def test_the_rate_rises_with_the_quality(codec):
    latents = codec.analyze(data.coffee()[:192, :256])
    sizes = [len(codec.write(latents, quality=quality)) for quality in range(0, 101, 4)]
    assert (np.diff(sizes) > 0).all()
