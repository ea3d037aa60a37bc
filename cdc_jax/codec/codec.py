"""The codec: image ⇄ bytes. This is the public API.

    codec = cdc_jax.load_codec("bundle")
    data = codec.compress(image)            # uint8 [h, w, 3] → the bytes of a .cdc file
    image = codec.decompress(data, steps=5)

The latents of a file are the same on every machine; the image made of them is the same on one platform for a given
(file, steps, γ, η, seed, tile, compute type), and within a small tolerance across platforms; decoded together with
others, or over several devices, within ±1 of 255 in float32.
"""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from cdc_jax.codec import memory, tiling
from cdc_jax.codec.batch_decoder import decode_files
from cdc_jax.codec.batching import Progress, collect
from cdc_jax.codec.bundle import Bundle, load_bundle
from cdc_jax.codec.bundle_folder import shipped_bundle
from cdc_jax.codec.decoding import COMPUTE_TYPES
from cdc_jax.codec.device_pool import LocalDevices
from cdc_jax.codec.encoding import rate_bits
from cdc_jax.codec.file_reader import FileReader, padded_size
from cdc_jax.codec.image_decoder import ImageDecoder, decode_settings
from cdc_jax.codec.image_encoder import ImageEncoder, ImageLatents, quality_level
from cdc_jax.codec.image_input import ImageLike, as_image
from cdc_jax.codec.preview import synthesis_matrix
from cdc_jax.entropy.coder import DecodedSymbols, EntropyCoder
from cdc_jax.errors import BundleError, CdcError, ConfigError
from cdc_jax.io import cdc_file
from cdc_jax.io.files import MAX_PIXELS
from cdc_jax.io.images import Image, pad_to_multiple
from cdc_jax.models.config import STRIDE
from cdc_jax.runtime.prefetch import in_threads

_HOST_THREADS = 2  # beyond one per device: for entropy coding while the devices are busy


def load_codec(
    bundle_dir: str | os.PathLike | None = None, *, max_pixels: int = MAX_PIXELS, compute_type: str = "float32"
) -> Codec:
    """Opens a bundle.

    Args:
      bundle_dir: what training, `cdc export` or `cdc import-torch` made; None: the model that comes with the package.
      max_pixels: height × width above which `compress` and `decompress` refuse, before they allocate anything.
      compute_type: of the U-Net's products, "float32" or "bfloat16", which is quicker on accelerators and changes
        pixels a little. Files do not depend on it.

    Raises:
      BundleError: the folder is not a complete, valid bundle.
      ConfigError: the compute type is neither.
    """
    bundle_dir = shipped_bundle() if bundle_dir is None else bundle_dir
    return Codec(load_bundle(bundle_dir), max_pixels=max_pixels, compute_type=compute_type)


class Codec:
    """A model ready to compress and decompress. Safe to use from several threads.

    Attributes:
      config, max_pixels, compute_type: the model's settings, and what `load_codec` was given.
      params, weights_sha256: float32 weights by dotted name, and their hash.
      coding: what both ends of the file format share.
      coder: the entropy coder of `coding`.
      decoder: makes images of decoded symbols.
    """

    def __init__(self, bundle: Bundle, *, max_pixels: int = MAX_PIXELS, compute_type: str = "float32"):
        if compute_type not in COMPUTE_TYPES:
            raise ConfigError(f"compute_type is {compute_type!r}; it must be one of {', '.join(COMPUTE_TYPES)}.")
        self.config = bundle.config
        self.max_pixels = max_pixels
        self.compute_type = compute_type
        self.weights_sha256 = bundle.weights_sha256
        self._bundle_path = bundle.path
        self.params = bundle.params
        self.coding = bundle.coding
        self.coder = EntropyCoder(bundle.coding)
        self._devices = LocalDevices(bundle.params)
        self.decoder = ImageDecoder(bundle.config, self._devices, compute_type, synthesis_matrix(bundle))
        self._encoder = ImageEncoder(bundle, self.coder, self._devices)
        self._reader = FileReader(bundle, self.coder, max_pixels)

    def __repr__(self) -> str:
        rates = "every rate" if self.config.variable_rate else "one rate"
        return (
            f"<Codec {self._bundle_path or 'without a folder'}: {self.config.prediction}-prediction, "
            f"width {self.config.width}, {rates}, fingerprint {self.fingerprint.hex()}, {self.compute_type}>"
        )

    def __reduce__(self):
        """By the bundle's path, which the process that unpickles must see; copies are made so, too."""
        if self._bundle_path is None:
            raise pickle.PicklingError("This codec was not loaded from a folder, so it cannot be pickled or copied.")
        return _load_same, (self._bundle_path, self.weights_sha256, self.max_pixels, self.compute_type)

    @property
    def fingerprint(self) -> bytes:
        """Identifies the coding model: a file opens in every bundle that has the fingerprint stored in the file."""
        return self.coding.fingerprint

    def compress(self, image: ImageLike, *, quality: float | None = None) -> bytes:
        """The bytes of a `.cdc` file.

        Args:
          image: uint8 [h, w, 3], sRGB, of any size from 1×1 up; or the path of an image file, or a PIL image.
          quality: 0 (smallest file) to 100, of a model of every rate; None: 50.

        Raises:
          TypeError: none of these.
          ImageError: an array of another type or shape, a file that cannot be read, or more than `max_pixels`.
          ConfigError: the quality is out of range, or the model has one rate.
        """
        level = quality_level(self.config, quality)
        return self._encoder.write(self.analyze(image), level)

    def check_quality(self, quality: float | None) -> None:
        """Raises ConfigError as `compress` for a quality that the model does not have."""
        quality_level(self.config, quality)

    def analyze(self, image: ImageLike) -> ImageLatents:
        """What the files of every quality are made from; `write` makes them in milliseconds. Raises as `compress`."""
        image = as_image(image, self.max_pixels)
        return self._encoder.analyze(pad_to_multiple(image, STRIDE), *image.shape[:2])

    def write(self, latents: ImageLatents, *, quality: float | None = None) -> bytes:
        """The file of analyzed latents. Raises ConfigError as `compress`."""
        return self._encoder.write(latents, quality_level(self.config, quality))

    def part_bits(self, latents: ImageLatents, *, quality: float | None = None) -> tuple[float, float]:
        """Ideal bits of z (side information) and of y in that file. Raises ConfigError as `compress`."""
        return self._encoder.part_bits(latents, quality_level(self.config, quality))

    def decompress(
        self,
        data: bytes,
        *,
        steps: int | None = None,
        seed: int = 0,
        gamma: float | None = None,
        eta: float = 0.0,
        tile: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """The image of a `.cdc` file.

        Args:
          data: the file's bytes.
          steps: DDIM steps; more add texture and cost time. 0: the preview of a model with the transform, one matrix
            product without a network. None: the model's default.
          seed: of the noise, 0 ≤ seed < 2³².
          gamma: scale of the starting noise; 0 starts from grey. None: the model's default.
          eta: noise added at every step, 0 (none) to 1.
          tile: pixels along the side of the tiles that the image is decoded in, at most, a multiple of 64; a part
            of the result, since tiles see less. None: whole up to 2²⁰ pixels, else 768, whatever the machine.
          progress: called as `progress(done, total)` after each tile of each step, once if the image is decoded whole.

        Raises:
          BitstreamError: the data is not a valid file, or declares more than `max_pixels`.
          ModelMismatchError: the file needs another bundle.
          ConfigError: steps, seed, gamma, eta or tile is invalid.
        """
        settings = decode_settings(self.config, steps, seed, gamma, eta)
        if tile is not None:
            tiling.check_tile(tile)
        container, symbols = self._reader.read(data)
        image = self.decoder.decode(symbols, settings, tile, progress)
        return image[: container.height, : container.width]

    def decompress_progressively(
        self, data: bytes, *, steps: int | None = None, seed: int = 0, gamma: float | None = None, eta: float = 0.0
    ) -> Iterator[Image]:
        """The preview of a model with the transform, then each step's estimate. Arguments and errors of `decompress`.

        The last is `decompress`'s image: the same where that is decoded in tiles, else within ±1 of 255.
        """
        settings = decode_settings(self.config, steps, seed, gamma, eta)
        container, symbols = self._reader.read(data)
        for image in self.decoder.decode_progressively(symbols, settings):
            yield image[: container.height, : container.width]

    def tile_within(self, data: bytes, max_memory_bytes: int) -> int | None:
        """The largest tile that `decompress` is estimated to decode a file with in this much memory.

        Returns:
          Pixels along its side; None where that is what `decompress` does by itself.

        Raises:
          BitstreamError, ModelMismatchError: as `decompress`.
          ConfigError: no tile is small enough.
        """
        height, width = padded_size(self._reader.open(data))
        tile = memory.tile_within(max_memory_bytes, height, width, self.config.width, len(self._devices))
        shapes = [tiling.tile_shape(height, width, side) for side in (tile, tiling.default_tile(height, width))]
        return None if shapes[0] == shapes[1] else tile

    def compress_batch(
        self, images: Sequence[ImageLike], *, quality: float | None = None, progress: Progress | None = None
    ) -> list[bytes]:
        """`compress` for many images of any sizes: the same files, each device busy with one image at a time.

        Args:
          images, quality: as `compress`.
          progress: called as `progress(done, total)` after each.

        Raises:
          TypeError, ImageError: as `compress`, for the first such image.
          ConfigError: as `compress`.
        """
        compress = functools.partial(self.compress, quality=quality)
        results = in_threads(compress, images, workers=len(self._devices) + _HOST_THREADS)
        return collect(((index, data) for index, (_, data) in enumerate(results)), len(images), progress)

    def decompress_batch(
        self,
        files: Sequence[bytes],
        *,
        steps: int | None = None,
        seed: int = 0,
        gamma: float | None = None,
        eta: float = 0.0,
        tile: int | None = None,
        progress: Progress | None = None,
    ) -> list[Image]:
        """`decompress` for many files, over all devices: images of the same padded size share batches.

        The images are those of `decompress`: on one CPU device the same, elsewhere within ±1 of 255 in float32.

        Args:
          files: the files' bytes.
          steps, seed, gamma, eta, tile: as `decompress`; every image starts from the same noise.
          progress: called as `progress(done, total)` after each.

        Raises:
          BitstreamError, ModelMismatchError, ConfigError: as `decompress`, for the first such file.
        """
        results = self.decompress_each(files, steps=steps, seed=seed, gamma=gamma, eta=eta, tile=tile)
        return collect(results, len(files), progress)

    def decompress_each(
        self,
        files: Sequence[bytes],
        *,
        steps: int | None = None,
        seed: int = 0,
        gamma: float | None = None,
        eta: float = 0.0,
        tile: int | None = None,
    ) -> Iterator[tuple[int, Image | CdcError]]:
        """`decompress_batch` that gives (index, image) as images get ready, and the error in place of a bad file's.

        While the devices are busy with one batch, the next one's streams are read.

        Raises:
          ConfigError: as `decompress`.
        """
        settings = decode_settings(self.config, steps, seed, gamma, eta)
        if tile is not None:
            tiling.check_tile(tile)
        yield from decode_files(files, self._reader, self.decoder, self._devices, settings, tile)

    def decode_symbols(self, data: bytes) -> DecodedSymbols:
        """The integers in a file and what follows from them, for the padded image. Raises as `decompress`."""
        return self._reader.read(data)[1]

    def read_symbols(self, data: bytes) -> tuple[Int[np.ndarray, "H/64 W/64 c"], Int[np.ndarray, "H/16 W/16 c"]]:
        """The integers in a file, (round(z − m), round(y − μ)), int32, for the image padded to multiples of 64.

        Raises as `decompress`.
        """
        symbols = self.decode_symbols(data)
        return symbols.z, symbols.y

    def estimate_bits(self, image: ImageLike, *, quality: float | None = None) -> float:
        """−log₂ p of the image's rounded latents under the float model, in bits; what training minimizes.

        Raises as `compress`.
        """
        level = quality_level(self.config, quality)
        rate = None if level is None else np.array([level / cdc_file.MAX_LEVEL], np.float32)
        padded = pad_to_multiple(as_image(image, self.max_pixels), STRIDE)
        return float(rate_bits(self.config, self.params, padded[None], rate)[0])


def _load_same(bundle_dir: Path, weights_sha256: str, max_pixels: int, compute_type: str) -> Codec:
    """The codec that was pickled. Raises BundleError: the bundle has other weights since."""
    codec = load_codec(bundle_dir, max_pixels=max_pixels, compute_type=compute_type)
    if codec.weights_sha256 != weights_sha256:
        raise BundleError(f"{bundle_dir} has other weights than when the codec was pickled.")
    return codec
