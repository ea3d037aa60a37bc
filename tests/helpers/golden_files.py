"""The golden files of every format version, and their models."""

import zipfile
from pathlib import Path

import numpy as np

from cdc_jax.io import cdc_file

FOLDER = Path(__file__).parents[1] / "golden_files"
VERSIONS = [f"v{version}" for version in cdc_file.VERSIONS]
PAIRS = [(version, path.stem) for version in VERSIONS for path in sorted((FOLDER / version).glob("*.cdc"))]
CHUNK_FILES = {"one_rate": "v1", "every_rate": "v2"}  # in the folder chunks: the version of each file's model

_ARRAYS = {"v1": ("z", "y", "mean", "scale_index"), "v2": ("z", "y", "mean", "scale_index", "y_hat")}


def golden_file(version: str, name: str) -> bytes:
    """The bytes of a golden file."""
    return (FOLDER / version / f"{name}.cdc").read_bytes()


def golden_symbols(version: str, name: str) -> dict[str, np.ndarray]:
    """z, y, mean, scale_index and, in format 2, y_hat as the encoder had them."""
    with np.load(FOLDER / version / "symbols.npz") as arrays:
        return {key: arrays[f"{name}.{key}"] for key in _ARRAYS[version]}


def unpack_bundle(version: str, folder: Path) -> Path:
    """Unpacks a version's bundle into a folder."""
    with zipfile.ZipFile(FOLDER / version / "bundle.zip") as archive:
        archive.extractall(folder)
    return folder


def coding_lists(bundle: Path) -> tuple[dict, list]:
    """coding.npz's arrays as lists, and the tables of z and of y as lists of (low, counts)."""
    with np.load(bundle / "coding.npz") as arrays:
        coding = {key: arrays[key].tolist() for key in arrays.files}
    families = []
    for family in "zy":
        low, offsets, counts = (coding[f"{family}_{part}"] for part in ("low", "offsets", "counts"))
        spans = zip(offsets, offsets[1:], strict=False)
        families.append([(first, counts[a:b]) for first, (a, b) in zip(low, spans, strict=True)])
    return coding, families
