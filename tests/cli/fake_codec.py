"""A fake codec that stores the pixels, and helpers of the command line's tests."""

import io
import os
import types
import zlib
from pathlib import Path

import numpy as np
import pytest

from cdc_jax.codec.image_input import chunks_of
from cdc_jax.errors import BitstreamError, BundleError, ConfigError
from cdc_jax.io import cdc_file
from cdc_jax.io.images import ImageContents, write_image

FINGERPRINT = bytes.fromhex("0a1b2c3d")
OTHER = bytes.fromhex("ffee0011")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, limits and devices")


class StoringCodec:
    """Has `Codec`'s interface. The stream is the pixels, plus one byte per unit of quality in a variable-rate model."""

    def __init__(self, fingerprint=FINGERPRINT, variable_rate=False):
        self.fingerprint = fingerprint
        self.config = types.SimpleNamespace(variable_rate=variable_rate)
        self.calls, self.written = [], []

    def compress(self, image, *, quality=None):
        return self.write(self.analyze(image), quality=quality)

    def analyze(self, image):
        return image

    def write(self, image, *, quality=None):
        self.check_quality(quality)
        self.written.append(quality)
        quality = 50.0 if self.config.variable_rate and quality is None else quality
        level = None if quality is None else round(256 * quality)
        contents = image if isinstance(image, ImageContents) else ImageContents(image)
        height, width, _ = contents.pixels.shape
        stream = zlib.compress(contents.pixels.tobytes()) + bytes(int(quality or 0))
        return cdc_file.pack(self.fingerprint, height, width, stream, level=level, chunks=chunks_of(contents))

    def check_quality(self, quality):
        if quality is not None and not self.config.variable_rate:
            raise ConfigError("This model has one rate: leave the quality out.")

    def decompress(self, data, *, steps=None, seed=0, gamma=None, eta=0.0, **tile):
        self.calls.append({"steps": steps, "seed": seed, "gamma": gamma, "eta": eta, **tile})
        file = cdc_file.unpack(data)
        pixels = zlib.decompressobj().decompress(file.stream)
        return np.frombuffer(pixels, np.uint8).reshape(file.height, file.width, 3)

    def tile_within(self, data, max_memory_bytes):
        return None if max_memory_bytes > 2**30 else 6

    def decompress_each(self, files, **settings):
        """Yields the last file first, since any order is allowed, and an error in place of an image it cannot read."""
        self.batches = [*getattr(self, "batches", []), len(files)]
        for index in reversed(range(len(files))):
            try:
                yield index, self.decompress(files[index], **settings)
            except zlib.error:
                yield index, BitstreamError("The file is corrupt.")


class Bundles:
    """Loads fake codecs and records their paths. The bundle's path determines what its codec is like."""

    def __init__(self):
        self.loaded, self.codecs = [], {}

    def __call__(self, path, *, max_pixels):
        self.loaded.append(str(path))
        self.max_pixels = max_pixels
        if "corrupt" in str(path):
            raise BundleError(f"{path} is not a bundle")
        codec = StoringCodec(OTHER if "other" in str(path) else FINGERPRINT, variable_rate="every-rate" in str(path))
        return self.codecs.setdefault(str(path), codec)


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
    """Asserts one line on standard error that contains all the words, and nothing on standard output."""
    exit_code, out, err = result
    assert exit_code == code and out == "" and len(err) == 1, result
    for word in words:
        assert word in err[0], result
