"""Fixtures that run the command line with a fake codec, which stores the pixels."""

import numpy as np
import pytest

from cdc_jax.cli import main
from cdc_jax.io.images import write_image
from tests.cli.fake_codec import Bundles


@pytest.fixture
def bundles():
    return Bundles()


@pytest.fixture
def cdc(capfd, bundles, tmp_path, monkeypatch):
    """Runs a command line in `tmp_path`; returns (exit code, standard output, lines of standard error).

    capfd comes before monkeypatch, so that a replaced sys.stdout is restored before capfd ends.
    """
    monkeypatch.chdir(tmp_path)

    def run(*words, load_codec=bundles):
        code = main(list(words), load_codec=load_codec)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err.splitlines()

    return run


@pytest.fixture
def photo(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_image(tmp_path / "photo.png", image)
    return image
