"""The public codec, which turns images into bytes and back.

    codec = cdc_jax.load_codec("bundle")
    data = codec.compress(image)            # uint8 [h, w, 3 or 4] → the bytes of a .cdc file
    image = codec.decompress(data, steps=5)

A file decodes to the same latents on every machine. On one platform, its pixels are determined by (file, steps, γ, η,
seed, tile, compute type); across platforms they agree within a small tolerance. In a batch with other files or on
several devices, pixels may differ by 1 of 255 in float32.
"""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from cdc_jax.codec import memory
from cdc_jax.codec.batch_decoder import decode_files
from cdc_jax.codec.batching import Progress, collect
from cdc_jax.codec.bundle import Bundle, load_bundle
from cdc_jax.codec.bundle_folder import bundle_folder
from cdc_jax.codec.decoding import COMPUTE_TYPES
from cdc_jax.codec.device_pool import LocalDevices
from cdc_jax.codec.file_reader import FileReader, padded_size
from cdc_jax.codec.image_decoder import ImageDecoder, decode_settings
from cdc_jax.codec.image_encoder import ImageEncoder, ImageLatents, quality_level
from cdc_jax.codec.image_input import ImageLike, as_contents, chunks_of
from cdc_jax.codec.preview import synthesis_matrix
from cdc_jax.entropy.coder import DecodedSymbols, EntropyCoder
from cdc_jax.errors import BundleError, CdcError, ConfigError
from cdc_jax.io.alpha import add_alpha
from cdc_jax.io.files import MAX_PIXELS
from cdc_jax.io.images import Image, ImageWithAlpha
from cdc_jax.runtime.prefetch import in_threads

_HOST_THREADS = 2  # threads beyond one per device, for entropy coding while the devices are busy


def load_codec(
    bundle_dir: str | os.PathLike | None = None, *, max_pixels: int = MAX_PIXELS, compute_type: str = "float32"
) -> Codec:
    """Opens a bundle.

    Args:
      bundle_dir: a folder written by training, `cdc export` or `cdc import-torch`, or such a folder's name on the hub,
        hf://OWNER/REPO[@REVISION][/SUBFOLDER], which is downloaded once; by default the shipped model.
      max_pixels: limit on height × width, which `compress` and `decompress` check before they allocate anything.
      compute_type: precision of the U-Net's matrix products and convolutions, "float32" or "bfloat16", which is faster
        on accelerators and changes pixels slightly. Files do not depend on it.

    Raises:
      BundleError: this is not a complete, valid bundle, or it cannot be downloaded.
      ConfigError: the compute type is unknown.
    """
    return Codec(load_bundle(bundle_folder(bundle_dir)), max_pixels=max_pixels, compute_type=compute_type)


class Codec:
    """A model that compresses and decompresses images. Safe to use from several threads.

    Attributes:
      config, max_pixels, compute_type: the model's settings, and the arguments of `load_codec`.
      params, weights_sha256: float32 weights by dotted name, and their SHA-256 as hexadecimal digits.
      coding: the tables and integer networks that encoder and decoder share.
      coder: the entropy coder of `coding`.
      decoder: turns decoded symbols into images.
    """

    def __init__(self, bundle: Bundle, *, max_pixels: int = MAX_PIXELS, compute_type: str = "float32"):
        if compute_type not in COMPUTE_TYPES:
            raise ConfigError(f"compute_type is {compute_type!r}; it must be one of {', '.join(COMPUTE_TYPES)}.")
        self.config, self.max_pixels, self.compute_type = bundle.config, max_pixels, compute_type
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
        """Pickles and copies the codec by the path of its bundle, which must exist where it is unpickled."""
        if self._bundle_path is None:
            raise pickle.PicklingError("This codec was not loaded from a folder, so it cannot be pickled or copied.")
        return _load_same, (self._bundle_path, self.weights_sha256, self.max_pixels, self.compute_type)

    @property
    def fingerprint(self) -> bytes:
        """4 bytes that identify the coding model. A file opens with any bundle that has its fingerprint."""
        return self.coding.fingerprint

    def compress(
        self, image: ImageLike, *, quality: float | None = None, drop_alpha: bool = False, keep_metadata: bool = False
    ) -> bytes:
        """Compresses an image; returns the bytes of a `.cdc` file.

        Args:
          image: uint8 [h, w, 3 or 4], sRGB, of any size from 1×1 up; or the path of an image file, or a PIL image.
          quality: 0 (smallest file) to 100, by default 50; only for a variable-rate model.
          drop_alpha: leave out the alpha channel. By default, it is kept losslessly, unless every pixel is opaque.
          keep_metadata: keep the EXIF and XMP data of a path or PIL image, and its pixels in its RGB color profile.

        Raises:
          TypeError: the image has an unsupported type.
          ImageError: an array has another dtype or shape, a file cannot be read, or there are more than `max_pixels`.
          ConfigError: the quality is out of range, or given for a single-rate model.
        """
        level = quality_level(self.config, quality)
        return self._encoder.write(self.analyze(image, drop_alpha=drop_alpha, keep_metadata=keep_metadata), level)

    def check_quality(self, quality: float | None) -> None:
        """Raises ConfigError if `compress` would refuse this quality."""
        quality_level(self.config, quality)

    def analyze(self, image: ImageLike, *, drop_alpha: bool = False, keep_metadata: bool = False) -> ImageLatents:
        """Runs the encoder. `write` quickly turns its result into files of any quality. Raises like `compress`."""
        contents = as_contents(image, self.max_pixels, keep_metadata=keep_metadata)
        return self._encoder.analyze(contents.pixels, chunks_of(contents, drop_alpha=drop_alpha))

    def write(self, latents: ImageLatents, *, quality: float | None = None) -> bytes:
        """The bytes of the `.cdc` file for latents from `analyze`. Raises ConfigError like `compress`."""
        return self._encoder.write(latents, quality_level(self.config, quality))

    def part_bits(self, latents: ImageLatents, *, quality: float | None = None) -> tuple[float, float]:
        """Ideal bits for z (side information) and for y in the file of `write`. Raises ConfigError like `compress`."""
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
        max_memory_bytes: int | None = None,
        return_alpha: bool = False,
        progress: Progress | None = None,
    ) -> Image | ImageWithAlpha:
        """Decompresses a `.cdc` file; returns its image, uint8 [h, w, 3], sRGB.

        Args:
          data: the file's bytes.
          steps: DDIM steps, by default the model's; more take longer, and help only models trained for them. 0
            returns the preview of a model with a transform, which takes one matrix product and runs no network.
          seed: seed of the noise, 0 ≤ seed < 2³².
          gamma: scale of the starting noise, by default the model's; 0 starts from gray.
          eta: DDIM's η, the noise added at each step, 0 (none) to 1.
          tile: largest side of the tiles in pixels, a multiple of 64. Tiles see less context, so they change the
            result. By default, images of up to 2²⁰ pixels are decoded whole, and larger ones use 768, on every machine.
          max_memory_bytes: limit for keeping what a tile's steps have in common; by default, half of the free memory.
          return_alpha: return uint8 [h, w, 4] with the file's alpha channel, opaque if the file has none.
          progress: called as `progress(done, total)` after each tile of each step, or once for an image without tiles.

        Raises:
          BitstreamError: the data is not a valid file, or declares more than `max_pixels`.
          ModelMismatchError: the file needs another bundle.
          ConfigError: steps, seed, gamma, eta or tile is invalid.
        """
        settings = decode_settings(self.config, steps, seed, gamma, eta, tile)
        container, symbols = self._reader.read(data)
        alpha = self._reader.alpha(data) if return_alpha else None
        image = self.decoder.decode(symbols, settings, tile, progress, max_memory_bytes)
        image = image[: container.height, : container.width]
        return add_alpha(image, alpha) if return_alpha else image

    def decompress_progressively(
        self, data: bytes, *, steps: int | None = None, seed: int = 0, gamma: float | None = None, eta: float = 0.0
    ) -> Iterator[Image]:
        """Yields the preview, if the model has a transform, and each step's estimate of the image, uint8 [h, w, 3].

        Arguments and errors are those of `decompress`. The last image equals that of `decompress`: exactly if the image
        is decoded in tiles, otherwise within ±1 of 255.
        """
        settings = decode_settings(self.config, steps, seed, gamma, eta)
        container, symbols = self._reader.read(data)
        for image in self.decoder.decode_progressively(symbols, settings):
            yield image[: container.height, : container.width]

    def tile_within(self, data: bytes, max_memory_bytes: int) -> int | None:
        """The largest `tile` with which `decompress` is estimated to stay within `max_memory_bytes`.

        Returns:
          The tile's side in pixels, or None if it is the default of `decompress`.

        Raises:
          BitstreamError, ModelMismatchError: as `decompress`.
          ConfigError: no tile is small enough.
        """
        height, width = padded_size(self._reader.open(data))
        return memory.special_tile_within(max_memory_bytes, height, width, self.config, len(self._devices))

    def compress_batch(
        self,
        images: Sequence[ImageLike],
        *,
        quality: float | None = None,
        drop_alpha: bool = False,
        keep_metadata: bool = False,
        progress: Progress | None = None,
    ) -> list[bytes]:
        """`compress` for many images of any sizes, on all local devices. Returns the same files in the same order.

        Args:
          images, quality, drop_alpha, keep_metadata: as `compress`.
          progress: called as `progress(done, total)` after each image.

        Raises:
          TypeError, ImageError, ConfigError: as `compress`, for the first such image.
        """
        compress = functools.partial(self.compress, quality=quality, drop_alpha=drop_alpha, keep_metadata=keep_metadata)
        results = (data for _, data in in_threads(compress, images, workers=len(self._devices) + _HOST_THREADS))
        return collect(enumerate(results), len(images), progress)

    def decompress_batch(
        self,
        files: Sequence[bytes],
        *,
        steps: int | None = None,
        seed: int = 0,
        gamma: float | None = None,
        eta: float = 0.0,
        tile: int | None = None,
        return_alpha: bool = False,
        progress: Progress | None = None,
    ) -> list[Image | ImageWithAlpha]:
        """`decompress` for many files, on all local devices. Images of the same padded size share batches.

        The images equal those of `decompress`: exactly on one CPU device with up to 8 padded sizes, else within ±1.

        Args:
          files: the files' bytes.
          steps, seed, gamma, eta, tile, return_alpha: as `decompress`; every image starts from the same noise.
          progress: called as `progress(done, total)` after each image.

        Raises:
          BitstreamError, ModelMismatchError, ConfigError: as `decompress`, for the first such file.
        """
        settings = {"steps": steps, "seed": seed, "gamma": gamma, "eta": eta, "tile": tile}
        return collect(self.decompress_each(files, return_alpha=return_alpha, **settings), len(files), progress)

    def decompress_each(
        self,
        files: Sequence[bytes],
        *,
        steps: int | None = None,
        seed: int = 0,
        gamma: float | None = None,
        eta: float = 0.0,
        tile: int | None = None,
        return_alpha: bool = False,
    ) -> Iterator[tuple[int, Image | ImageWithAlpha | CdcError]]:
        """Yields (index, image) of `decompress_batch` in order of completion, or (index, error) for an invalid file.

        The streams of the next batch are decoded while the devices process the current one.

        Raises:
          ConfigError: as `decompress`.
        """
        settings = decode_settings(self.config, steps, seed, gamma, eta, tile)
        yield from decode_files(files, self._reader, self.decoder, self._devices, settings, tile, return_alpha)

    def decode_symbols(self, data: bytes) -> DecodedSymbols:
        """A file's symbols, means, scale indices and ŷ, for the padded image. Raises the errors of `decompress`."""
        return self._reader.read(data)[1]

    def read_symbols(self, data: bytes) -> tuple[Int[np.ndarray, "H/64 W/64 c"], Int[np.ndarray, "H/16 W/16 c"]]:
        """The symbols (z, y) of a file, int32, for the image padded to multiples of 64. Raises like `decompress`."""
        symbols = self.decode_symbols(data)
        return symbols.z, symbols.y

    def estimate_bits(self, image: ImageLike, *, quality: float | None = None) -> float:
        """−log₂ p of the rounded latents under the float model, in bits: the training rate. Raises like `compress`."""
        pixels = as_contents(image, self.max_pixels).pixels
        return self._encoder.estimate_bits(pixels, quality_level(self.config, quality))


def _load_same(bundle_dir: Path, weights_sha256: str, max_pixels: int, compute_type: str) -> Codec:
    """Unpickles a codec. Raises BundleError if the bundle's weights have changed."""
    codec = load_codec(bundle_dir, max_pixels=max_pixels, compute_type=compute_type)
    if codec.weights_sha256 != weights_sha256:
        raise BundleError(f"{bundle_dir} has other weights than when the codec was pickled.")
    return codec
