"""Makes the golden files with alpha and metadata chunks: those of the image `odd_size`, which v1 and v2 have, too.

  python -m tests.golden_files.make_chunks        from the repository's root

Run it once, never again: these chunks are what every later program must read. An existing folder is kept.

  chunks/one_rate.cdc      v1's model, so format 2 at level 0; the alpha channel as PNG, EXIF data
  chunks/every_rate.cdc    v2's model; the alpha channel as WebP, EXIF data, an ICC profile, an XMP packet
"""

import io
import sys

import numpy as np
from PIL import Image as PILImage
from PIL import ImageCms

from cdc_jax.io import cdc_file
from cdc_jax.io.alpha import ALPHA_TYPE
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.metadata import Metadata, metadata_chunks
from tests.golden_files.make import FOLDER
from tests.helpers.golden_files import CHUNK_FILES, golden_file

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def alpha() -> np.ndarray:
    """uint8 [37, 53]: a gradient that wraps around."""
    row, column = np.mgrid[:37, :53]
    return ((5 * row + 3 * column) % 256).astype(np.uint8)


def _saved(format: str) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(alpha()).save(buffer, format, **({"lossless": True} if format == "WEBP" else {}))
    return buffer.getvalue()


def _exif() -> bytes:
    exif = PILImage.Exif()
    exif[0x010F] = "Maker"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _files() -> dict[str, bytes]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    chunks = {
        "one_rate": (Chunk(ALPHA_TYPE, _saved("PNG")), *metadata_chunks(Metadata(exif=_exif()))),
        "every_rate": (Chunk(ALPHA_TYPE, _saved("WEBP")), *metadata_chunks(Metadata(_exif(), profile, XMP))),
    }
    files = {}
    for name, version in CHUNK_FILES.items():
        header = cdc_file.unpack(golden_file(version, "odd_size"))
        fields = header.fingerprint, header.height, header.width, header.stream
        files[name] = cdc_file.pack(*fields, level=header.level, chunks=chunks[name])
    return files


if __name__ == "__main__":
    target = FOLDER / "chunks"
    if target.exists():
        sys.exit(f"{target} exists already: golden files are made once and never changed")
    target.mkdir()
    for name, data in _files().items():
        (target / f"{name}.cdc").write_bytes(data)
