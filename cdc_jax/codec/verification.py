"""Whether a file, a bundle and this machine agree: all that decoding depends on, without making the image."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.codec.bundle import Bundle, load_bundle
from cdc_jax.codec.bundle_folder import shipped_bundle
from cdc_jax.codec.codec import Codec
from cdc_jax.entropy.integer_checkerboard import IntegerCheckerboard
from cdc_jax.entropy.integer_hyper_decoder import IntegerHyperDecoder
from cdc_jax.entropy.latents import LatentModel, Pass
from cdc_jax.errors import CdcError
from cdc_jax.io import cdc_file
from cdc_jax.io.cdc_file import MAX_LEVEL
from cdc_jax.io.files import MAX_PIXELS
from cdc_jax.io.header import file_bytes

_MACHINE_CELLS = 2  # cells of z along each side of the piece that is computed twice


@dataclass(frozen=True)
class Verified:
    """A file that agrees with bundle and machine.

    Attributes:
      header: its fields.
      num_symbols: integers read from it, those of z and of y.
    """

    header: cdc_file.Container
    num_symbols: int


class Verifier:
    """A bundle, whose weights were checked when it was loaded, ready to verify files.

    Attributes:
      weights_sha256: hash of the weights.
    """

    def __init__(self, bundle: Bundle, *, max_pixels: int = MAX_PIXELS):
        self.weights_sha256 = bundle.weights_sha256
        self._codec = Codec(bundle, max_pixels=max_pixels)
        self._latents = bundle.coding.latents

    @property
    def fingerprint(self) -> bytes:
        """Of the coding model."""
        return self._codec.fingerprint

    def verify(self, data: bytes) -> Verified:
        """Decodes a file's symbols and encodes them again, and computes a piece of the integer net in two ways.

        Raises:
          BitstreamError: the data is not a valid file, or declares more than `max_pixels`.
          ModelMismatchError: the file needs another bundle.
          CdcError: this machine computes other numbers than the format asks for.
        """
        z, y = self._codec.read_symbols(data)
        check_machine(self._latents, z[:_MACHINE_CELLS, :_MACHINE_CELLS])
        return Verified(cdc_file.unpack(data), z.size + y.size)


def load_verifier(bundle_dir: str | os.PathLike | None = None, *, max_pixels: int = MAX_PIXELS) -> Verifier:
    """Opens a bundle to verify files with it. Raises BundleError: it is incomplete or corrupt."""
    bundle_dir = shipped_bundle() if bundle_dir is None else bundle_dir
    return Verifier(load_bundle(bundle_dir), max_pixels=max_pixels)


def verify(
    source: str | os.PathLike | bytes, bundle_dir: str | os.PathLike | None = None, *, max_pixels: int = MAX_PIXELS
) -> Verified:
    """Checks that a file, a bundle and this machine agree; makes no image. `load_verifier` is for many files.

    Args:
      source: the path of a `.cdc` file, or its bytes.
      bundle_dir: the bundle; None: the model that comes with the package.
      max_pixels: refuse a file that declares more.

    Raises:
      BundleError: as `load_verifier`.
      BitstreamError, ModelMismatchError, CdcError: as `Verifier.verify`; BitstreamError also where the file cannot be
        read.
    """
    data = file_bytes(source)
    return load_verifier(bundle_dir, max_pixels=max_pixels).verify(data)


class _Int64Sums(IntegerHyperDecoder):
    """The same sums in 64-bit integers: slow, and beyond any doubt of the floating-point unit and its libraries."""

    def matmul(self, x: Float[np.ndarray, "n k"], matrix: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "n m"]:
        return _int64_product(x, matrix)


class _Int64Checkerboard(IntegerCheckerboard):
    def matmul(self, x: Float[np.ndarray, "n k"], matrix: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "n m"]:
        return _int64_product(x, matrix)


def _int64_product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return (x.astype(np.int64) @ matrix.astype(np.int64)).astype(np.float64)


def check_machine(model: LatentModel, z: Int[np.ndarray, "h w c"]) -> None:
    """Raises CdcError unless the integer networks, in float64 and in 64-bit integers, give the same for this z."""
    net, board = model.hyper_decoder, model.checkerboard
    exact_net = _Int64Sums(net.layers, net.medians, net.thresholds)
    exact_board = board and _Int64Checkerboard(*(getattr(board, field.name) for field in fields(board)))
    exact = LatentModel(exact_net, model.gains, exact_board)

    def alternating(step: Pass) -> np.ndarray:
        return np.resize(np.array([0, 1, -1, 2, 0], np.int32), step.mean.shape)

    computed, expected = (each.code(z, MAX_LEVEL // 2, alternating) for each in (model, exact))
    if not all(map(np.array_equal, computed, expected)):
        raise CdcError(
            "This machine's float64 matrix products are not exact, so it cannot read files: "
            "install another build of NumPy."
        )
