"""The header of a `.cdc` file, which `cdc info` prints. Needs no model. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cdc_jax.errors import BitstreamError, reason_of
from cdc_jax.io import cdc_file


@dataclass(frozen=True)
class Header:
    """The header of a `.cdc` file, and the file's size.

    Attributes:
      width, height: the image's size in pixels.
      num_bytes: the size of the whole file.
      format_version: 1 or 2.
      fingerprint: 4 bytes that identify the entropy model. A codec with the same `Codec.fingerprint` opens the file.
      quality: 0 to 100; None in format 1.
      chunks: size in bytes of each chunk, by its type; empty in format 1.
    """

    width: int
    height: int
    num_bytes: int
    format_version: int
    fingerprint: bytes
    quality: float | None
    chunks: Mapping[str, int]

    @property
    def bpp(self) -> float:
        """The size of the whole file in bits per pixel."""
        return 8 * self.num_bytes / (self.width * self.height)


def read_header(source: str | os.PathLike[str] | bytes) -> Header:
    """Reads a file's header, and checks its checksum.

    Args:
      source: the path of a `.cdc` file, or its bytes.

    Raises:
      BitstreamError: the file cannot be read, or is not valid.
    """
    data = file_bytes(source)
    try:
        fields = cdc_file.unpack(data)
    except BitstreamError as error:
        name = "" if data is source else f"{os.fspath(source)}: "
        raise BitstreamError(f"{name}{error}") from None
    return Header(
        width=fields.width,
        height=fields.height,
        num_bytes=len(data),
        format_version=fields.version,
        fingerprint=fields.fingerprint,
        quality=fields.quality if fields.version > 1 else None,
        chunks={chunk.type.decode(): len(chunk.data) for chunk in fields.chunks},
    )


def file_bytes(source: str | os.PathLike[str] | bytes) -> bytes:
    """Reads a file if `source` is a path; returns bytes unchanged. Raises BitstreamError if it cannot be read."""
    if not isinstance(source, str | os.PathLike):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise BitstreamError(f"{os.fspath(source)}: Cannot be read: {reason_of(error)}.") from error
