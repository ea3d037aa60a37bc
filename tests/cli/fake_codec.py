"""A codec in place of the real one that stores the pixels, and what tests of the command line do around it."""

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.errors import BitstreamError, BundleError
from cdc_jax.io import cdc_file
from cdc_jax.io.images import write_image

FINGERPRINT = bytes.fromhex("0a1b2c3d")
OTHER = bytes.fromhex("ffee0011")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, limits and devices")


class StoringCodec:
    """`Codec`'s interface; the stream is the pixels."""

    def __init__(self, fingerprint=FINGERPRINT):
        self.fingerprint = fingerprint
        self.calls = []

    def compress(self, image):
        height, width, _ = image.shape
        return cdc_file.pack(self.fingerprint, height, width, zlib.compress(image.tobytes()))

    def decompress(self, data, *, steps=None, seed=0, gamma=None, **tile):
        self.calls.append({"steps": steps, "seed": seed, "gamma": gamma, **tile})
        file = cdc_file.unpack(data)
        return np.frombuffer(zlib.decompress(file.stream), np.uint8).reshape(file.height, file.width, 3)

    def tile_within(self, data, max_memory_bytes):
        return None if max_memory_bytes > 2**30 else 6

    def decompress_each(self, files, **settings):
        """Last first: any order is allowed. A stream that cannot be read is an error in the image's place."""
        self.batches = [*getattr(self, "batches", []), len(files)]
        for index in reversed(range(len(files))):
            try:
                yield index, self.decompress(files[index], **settings)
            except zlib.error:
                yield index, BitstreamError("The file is damaged.")


class Bundles:
    """A loader of codecs that remembers what it loaded; a bundle's fingerprint follows from its name."""

    def __init__(self):
        self.loaded, self.codecs = [], {}

    def __call__(self, path, *, max_pixels):
        self.loaded.append(str(path))
        self.max_pixels = max_pixels
        if "corrupt" in str(path):
            raise BundleError(f"{path} is not a bundle")
        return self.codecs.setdefault(str(path), StoringCodec(OTHER if "other" in str(path) else FINGERPRINT))


class Stream(io.TextIOWrapper):
    def __init__(self, data=b""):
        super().__init__(io.BytesIO(data), write_through=True)


def put(path, value=1, size=(8, 8)):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".cdc":
        path.write_bytes(StoringCodec().compress(np.full((*size, 3), value, np.uint8)))
    else:
        write_image(path, np.full((*size, 3), value, np.uint8))


def tree(folder="."):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def fails(result, code, *words):
    """One line on standard error, that holds all the words; nothing on standard output."""
    exit_code, out, err = result
    assert exit_code == code and out == "" and len(err) == 1, result
    for word in words:
        assert word in err[0], result
