"""Checks that a file, a bundle and this machine agree: everything that decoding needs, without decoding the image."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.codec.bundle import Bundle, load_bundle
from cdc_jax.codec.bundle_folder import bundle_folder
from cdc_jax.codec.codec import Codec
from cdc_jax.entropy.integer_checkerboard import IntegerCheckerboard
from cdc_jax.entropy.integer_hyper_decoder import IntegerHyperDecoder
from cdc_jax.entropy.latents import LatentModel, Pass
from cdc_jax.errors import CdcError
from cdc_jax.io import cdc_file
from cdc_jax.io.alpha import read_alpha
from cdc_jax.io.cdc_file import MAX_LEVEL
from cdc_jax.io.files import MAX_PIXELS
from cdc_jax.io.header import file_bytes
from cdc_jax.io.metadata import metadata_in

_MACHINE_CELLS = 2  # the machine is checked with 2×2 cells of z


@dataclass(frozen=True)
class Verified:
    """The result for a file that agrees with the bundle and the machine.

    Attributes:
      header: the file's header and stream.
      num_symbols: the number of symbols in z and y.
    """

    header: cdc_file.Container
    num_symbols: int


class Verifier:
    """Verifies files against a bundle whose weights `load_bundle` has checked.

    Attributes:
      config: the model's settings.
      weights_sha256: SHA-256 of the weights, as hexadecimal digits.
    """

    def __init__(self, bundle: Bundle, *, max_pixels: int = MAX_PIXELS):
        self.config, self.weights_sha256 = bundle.config, bundle.weights_sha256
        self._codec = Codec(bundle, max_pixels=max_pixels)
        self._latents = bundle.coding.latents

    @property
    def fingerprint(self) -> bytes:
        """4 bytes that identify the coding model."""
        return self._codec.fingerprint

    def verify(self, data: bytes) -> Verified:
        """Decodes the symbols of a file, re-encodes them, and checks the machine's arithmetic with a part of them.

        Raises:
          BitstreamError: the data is not a valid file, or declares more than `max_pixels`; or its alpha channel is
            corrupt.
          ModelMismatchError: the file needs another bundle.
          CdcError: this machine's arithmetic is not exact.
        """
        z, y = self._codec.read_symbols(data)
        check_machine(self._latents, z[:_MACHINE_CELLS, :_MACHINE_CELLS])
        header = cdc_file.unpack(data)
        read_alpha(header.chunks, header.height, header.width)
        metadata_in(header.chunks)
        return Verified(header, z.size + y.size)


def load_verifier(bundle_dir: str | os.PathLike | None = None, *, max_pixels: int = MAX_PIXELS) -> Verifier:
    """Opens a bundle for verifying files.

    Args:
      bundle_dir: the bundle, as `load_codec` takes it; by default the shipped model.
      max_pixels: files that declare more pixels are refused.

    Raises:
      BundleError: the bundle is incomplete or corrupt.
    """
    return Verifier(load_bundle(bundle_folder(bundle_dir)), max_pixels=max_pixels)


def verify(
    source: str | os.PathLike | bytes, bundle_dir: str | os.PathLike | None = None, *, max_pixels: int = MAX_PIXELS
) -> Verified:
    """Checks that a file, a bundle and this machine agree, without decoding an image.

    For many files, `load_verifier` loads the bundle only once.

    Args:
      source: the path of a `.cdc` file, or its bytes.
      bundle_dir: the bundle, as `load_codec` takes it; by default the shipped model.
      max_pixels: a file that declares more pixels is refused.

    Raises:
      BundleError: as `load_verifier`.
      BitstreamError: the file cannot be read, is not a valid file, or declares more than `max_pixels`.
      ModelMismatchError: the file needs another bundle.
      CdcError: this machine's arithmetic is not exact.
    """
    data = file_bytes(source)
    return load_verifier(bundle_dir, max_pixels=max_pixels).verify(data)


class _Int64Sums(IntegerHyperDecoder):
    """Computes the sums in 64-bit integers: slow, but independent of floating-point units and libraries."""

    def matmul(self, x: Float[np.ndarray, "n k"], matrix: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "n m"]:
        return _int64_product(x, matrix)


class _Int64Checkerboard(IntegerCheckerboard):
    def matmul(self, x: Float[np.ndarray, "n k"], matrix: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "n m"]:
        return _int64_product(x, matrix)


def _int64_product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return (x.astype(np.int64) @ matrix.astype(np.int64)).astype(np.float64)


def check_machine(model: LatentModel, z: Int[np.ndarray, "h w c"]) -> None:
    """Raises CdcError unless the integer networks return the same result for z in float64 and in 64-bit integers."""
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
