"""The original program's numbers on random weights, in this project's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cdc_jax.codec.import_torch import config_of, convert_tensors


class Golden:
    """One variant's arrays, NHWC; `params` are its weights by our names."""

    def __init__(self, variant: str, folder: Path):
        self.variant = variant
        self.checkpoint = folder / f"{variant}param_dim8.pt"
        with np.load(folder / f"{variant}param_dim8.npz") as archive:
            self._arrays = {name: archive[name] for name in archive.files}
        tensors = {k.removeprefix("param/"): v for k, v in self._arrays.items() if k.startswith("param/")}
        self.config = config_of(tensors)
        self.params = convert_tensors(tensors, self.config)

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array

    def raw(self, name: str) -> np.ndarray:
        """An array as it is stored."""
        return self._arrays[name]

    def names(self, prefix: str) -> list[str]:
        """Names that begin with `prefix`."""
        return [name for name in self._arrays if name.startswith(prefix)]

    def images(self) -> list[np.ndarray]:
        """The input images as uint8; they are exact 8-bit images."""
        return list(np.rint((self["image"] + 1) * 127.5).astype(np.uint8))

    def medians(self) -> np.ndarray:
        """The medians of z's prior, [c]."""
        return self.params["compressor.prior.medians"]


def relative_error(value, reference) -> float:
    """Largest difference, relative to the reference's largest absolute value."""
    value, reference = np.asarray(value), np.asarray(reference)  # NumPy compiles nothing
    return float(np.max(np.abs(value - reference)) / np.max(np.abs(reference)))
