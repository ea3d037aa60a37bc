"""Reads the header and the symbols of a model's files."""

from __future__ import annotations

from cdc_jax.codec.bundle import Bundle
from cdc_jax.codec.memory import LEAST_TO_READ, reading_bytes, room_for
from cdc_jax.entropy.coder import DecodedSymbols, EntropyCoder
from cdc_jax.errors import BitstreamError, CdcError, ModelMismatchError
from cdc_jax.io import cdc_file
from cdc_jax.io.alpha import Alpha, read_alpha
from cdc_jax.models.config import STRIDE, padded_sides


class FileReader:
    """Reads a model's files. Safe to use from several threads.

    Args:
      bundle: the model.
      coder: the entropy coder of its coding model.
      max_pixels: files with a larger height × width are refused.
    """

    def __init__(self, bundle: Bundle, coder: EntropyCoder, max_pixels: int):
        self._config, self._fingerprint = bundle.config, bundle.coding.fingerprint
        self._coder, self._max_pixels = coder, max_pixels

    def open(self, data: bytes) -> cdc_file.Container:
        """Reads a file's header.

        Raises:
          BitstreamError: the data is not a valid file of the model, or declares more than `max_pixels`.
          ModelMismatchError: the file needs another bundle.
          TypeError: the data is not bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"A file is given as its bytes, not as {type(data).__name__}: Path(…).read_bytes().")
        container = cdc_file.unpack(data, max_pixels=self._max_pixels)
        if container.fingerprint != self._fingerprint:
            raise ModelMismatchError(
                f"The file was written with the model {container.fingerprint.hex()}, but this bundle is "
                f"{self._fingerprint.hex()}: open it with the bundle of its model."
            )
        version = 2 if container.chunks else self._config.format_version
        if container.version != version or (container.level and not self._config.variable_rate):
            raise BitstreamError("The file's format or quality is not one that its model writes: it is corrupt.")
        return container

    def read(self, data: bytes) -> tuple[cdc_file.Container, DecodedSymbols]:
        """Reads a file's header and symbols. Raises the errors of `open`, and OutOfMemoryError if memory runs out."""
        container = self.open(data)
        height, width = padded_size(container)
        shape = height // STRIDE, width // STRIDE, self._config.hyper_channels
        what = f"Reading a file of {container.width}x{container.height} pixels"
        with room_for(what, reading_bytes(height, width, self._config), LEAST_TO_READ):
            return container, self._coder.decode(container.stream, shape, container.level)

    def alpha(self, data: bytes) -> Alpha | None:
        """A file's alpha channel, if any. Raises the errors of `open`; BitstreamError also if it is corrupt."""
        container = self.open(data)
        return read_alpha(container.chunks, container.height, container.width)

    def read_or_error(self, data: bytes) -> tuple[cdc_file.Container, DecodedSymbols] | CdcError:
        """`read`, but returns a CdcError instead of raising it."""
        try:
            return self.read(data)
        except CdcError as error:
            return error


def padded_size(container: cdc_file.Container) -> tuple[int, int]:
    """Height and width of a file's image, rounded up to multiples of 64."""
    return padded_sides(container.height, container.width)
