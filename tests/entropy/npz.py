"""Rewrites a coding.npz with other contents, as another program might, and damages it, as a disk might."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import BundleError


def rewrite(path: Path, *, compression: int = zipfile.ZIP_STORED, drop=(), **changes) -> None:
    """Replaces, adds and drops arrays of an archive, with NumPy's and zipfile's own writers."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name not in drop}
    arrays.update(changes)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asanyarray(array))
            archive.writestr(f"{name}.npy", stream.getvalue())


def check_damaged_files(saved: Path, model: CodingModel, positions: Sequence[int]) -> None:
    """Truncations, and single flipped bits at these bytes, give a BundleError or the same model, and nothing else."""
    content, rng = saved.read_bytes(), np.random.default_rng(0)
    for length in [0, 1, 100, *rng.integers(0, len(content), 30)]:
        saved.write_bytes(content[:length])
        with pytest.raises(BundleError, match="coding"):
            CodingModel.load(saved)
    refused = 0
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        try:
            assert CodingModel.load(saved).fingerprint == model.fingerprint
        except BundleError:
            refused += 1
    assert refused > len(positions) / 2
