"""Rewrites a coding.npz with other contents, as another program might."""

import io
import zipfile
from pathlib import Path

import numpy as np


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
