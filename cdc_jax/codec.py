"""The codec: picture ⇄ bytes. This is the public API.

    codec = cdc_jax.load_codec("bundle")
    data = codec.compress(image)            # uint8 [h, w, 3] → the bytes of a .cdc file
    image = codec.decompress(data, steps=5)

The latents of a file are the same on every machine; the picture made of them is the same on one platform for a given
(file, steps, γ, η, seed, compute type), and within a small tolerance across platforms.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from cdc_jax import bitstream
from cdc_jax.bundle import Bundle, load_bundle
from cdc_jax.diffusion.sampler import ddim_sample, picture_noise, sampling_steps
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.entropy.coder import MAX_ABS_SYMBOL, DecodedSymbols, EntropyCoder
from cdc_jax.errors import BundleError, ConfigError, ImageError, ModelMismatchError
from cdc_jax.files import MAX_PIXELS
from cdc_jax.images import check_image, pad_to_multiple
from cdc_jax.models.config import STRIDE, ModelConfig
from cdc_jax.models.params import Params, merge
from cdc_jax.pixels import to_uint8, to_unit_range

COMPUTE_TYPES = {"float32": None, "bfloat16": "bfloat16"}

Picture = UInt8[np.ndarray, "h w 3"]
Progress = Callable[[int, int], None]


def load_codec(
    bundle_dir: str | os.PathLike, *, max_pixels: int = MAX_PIXELS, compute_type: str = "float32"
) -> Codec:
    """Opens a bundle.

    Args:
      bundle_dir: what training, `cdc export` or `cdc import-torch` made.
      max_pixels: height × width above which `compress` and `decompress` refuse, before they allocate anything.
      compute_type: of the U-Net's products, "float32" or "bfloat16", which is quicker on accelerators and changes
        pixels a little. Files do not depend on it.

    Raises:
      BundleError: the folder is not a complete, sound bundle.
      ConfigError: the compute type is neither.
    """
    return Codec(load_bundle(bundle_dir), max_pixels=max_pixels, compute_type=compute_type)


class Codec:
    """A model ready to compress and decompress. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, *, max_pixels: int = MAX_PIXELS, compute_type: str = "float32"):
        if compute_type not in COMPUTE_TYPES:
            raise ConfigError(f"compute_type is {compute_type!r}; it must be one of {', '.join(COMPUTE_TYPES)}")
        self.config = bundle.config
        self.max_pixels = max_pixels
        self.compute_type = compute_type
        self.weights_sha256 = bundle.weights_sha256
        self._params = bundle.params
        self._coding = bundle.coding
        self._coder = EntropyCoder(bundle.coding)
        self._medians = np.asarray(bundle.params["compressor.prior.medians"])

    @property
    def fingerprint(self) -> bytes:
        """Names the entropy model; a file opens in every bundle with the fingerprint it carries."""
        return self._coding.fingerprint

    def compress(self, image: Picture) -> bytes:
        """The bytes of a `.cdc` file.

        Args:
          image: uint8 [h, w, 3], sRGB, of any size from 1×1 up.

        Raises:
          ImageError: not such an array, or larger than `max_pixels`.
        """
        padded = self._padded(image)
        y, z = (np.asarray(latent[0]) for latent in encode_latents(self.config, self._params, padded[None]))
        if not (np.isfinite(y).all() and np.isfinite(z).all()):
            raise BundleError("the model's latents are not finite numbers: its weights are damaged")
        z_symbols = _to_symbols(z - self._medians)
        mean, scale_index = self._coding.hyper_decoder.decode(z_symbols)
        stream = self._coder.encode(z_symbols, _to_symbols(y - mean), scale_index)
        return bitstream.pack(self.fingerprint, image.shape[0], image.shape[1], stream)

    def decompress(
        self, data: bytes, *, steps: int | None = None, seed: int = 0, gamma: float | None = None, eta: float = 0.0
    ) -> Picture:
        """The picture of a `.cdc` file.

        Args:
          data: the file's bytes.
          steps: DDIM steps; more add texture and cost time. None: the model's default.
          seed: of the noise, 0 ≤ seed < 2³².
          gamma: scale of the starting noise; 0 starts from grey. None: the model's default.
          eta: noise added at every step, 0 (none) to 1.

        Raises:
          BitstreamError: the data is not a sound file, or declares more than `max_pixels`.
          ModelMismatchError: the file needs another bundle.
          ConfigError: steps, seed, gamma or eta is impossible.
        """
        steps, gamma = self._decode_settings(steps, seed, gamma, eta)
        container, symbols = self._read(data)
        y_hat = symbols.y.astype(np.float32) + symbols.mean
        picture = synthesize(
            self.config,
            steps,
            eta > 0,
            self._params,
            y_hat[None],
            np.uint32(seed),
            np.float32(gamma),
            np.float32(eta),
            compute_type=self.compute_type,
        )
        return np.asarray(picture[0])[: container.height, : container.width]

    def compress_batch(self, images: Sequence[Picture], *, progress: Progress | None = None) -> list[bytes]:
        """`compress` for many pictures of any sizes; `progress(done, total)` is called after each."""
        return _each(self.compress, images, progress)

    def decompress_batch(
        self,
        files: Sequence[bytes],
        *,
        steps: int | None = None,
        seed: int = 0,
        gamma: float | None = None,
        progress: Progress | None = None,
    ) -> list[Picture]:
        """`decompress` for many files; `progress(done, total)` is called after each."""
        return _each(lambda data: self.decompress(data, steps=steps, seed=seed, gamma=gamma), files, progress)

    def read_symbols(self, data: bytes) -> tuple[Int[np.ndarray, "H/64 W/64 c"], Int[np.ndarray, "H/16 W/16 c"]]:
        """The integers in a file, (round(z − m), round(y − μ)), int32, of the picture padded to multiples of 64.

        Raises:
          BitstreamError, ModelMismatchError: as `decompress`.
        """
        symbols = self._read(data)[1]
        return symbols.z, symbols.y

    def estimate_bits(self, image: Picture) -> float:
        """−log₂ p of the picture's rounded latents under the float model, in bits; what training minimizes.

        Raises:
          ImageError: as `compress`.
        """
        return float(_rate_bits(self.config, self._params, self._padded(image)[None])[0])

    def _padded(self, image: Picture) -> Picture:
        check_image(image)
        height, width, _ = image.shape
        if bitstream.counted_pixels(height, width) > max(self.max_pixels, STRIDE**2):
            raise ImageError(f"the picture has {width}×{height} pixels, more than the limit of {self.max_pixels}")
        return pad_to_multiple(image, STRIDE)

    def _read(self, data: bytes) -> tuple[bitstream.Container, DecodedSymbols]:
        container = bitstream.unpack(data, max_pixels=self.max_pixels)
        if container.fingerprint != self.fingerprint:
            raise ModelMismatchError(
                f"the file was written with the model {container.fingerprint.hex()}, this bundle is "
                f"{self.fingerprint.hex()}"
            )
        cells = (-(-container.height // STRIDE), -(-container.width // STRIDE))
        return container, self._coder.decode(container.stream, (*cells, self.config.latent_channels))

    def _decode_settings(self, steps, seed, gamma, eta) -> tuple[int, float]:
        steps = self.config.decode_steps if steps is None else steps
        gamma = self.config.decode_gamma if gamma is None else gamma
        if not 1 <= steps <= self.config.num_timesteps:
            raise ConfigError(f"steps is {steps}; it must be between 1 and {self.config.num_timesteps}")
        if not 0 <= seed < 2**32:
            raise ConfigError(f"seed is {seed}; it must be between 0 and {2**32 - 1}")
        if not (gamma >= 0 and math.isfinite(gamma)):
            raise ConfigError(f"gamma is {gamma}; it must be zero or a positive number")
        if not 0 <= eta <= 1:
            raise ConfigError(f"eta is {eta}; it must be between 0 and 1")
        return steps, gamma


def _to_symbols(values: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Rounds half to even; beyond ±2²³, which no sane model reaches, symbols are clipped."""
    return np.clip(np.rint(values), -MAX_ABS_SYMBOL, MAX_ABS_SYMBOL).astype(np.int32)


def _each(function: Callable, items: Sequence, progress: Progress | None) -> list:
    results = []
    for item in items:
        results.append(function(item))
        if progress is not None:
            progress(len(results), len(items))
    return results


@functools.partial(jax.jit, static_argnums=0)
def encode_latents(config: ModelConfig, params: Params, images: UInt8[Array, "b h w 3"]):
    """Latents (y, z) before quantization, of pictures whose sides are multiples of 64."""
    return merge(config, params).compressor.encode(to_unit_range(images))


@functools.partial(jax.jit, static_argnums=0)
def _rate_bits(config: ModelConfig, params: Params, images: UInt8[Array, "b h w 3"]) -> Float[Array, " b"]:
    return merge(config, params).compress(to_unit_range(images)).rate_bits


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames="compute_type")
def synthesize(
    config: ModelConfig,
    steps: int,
    stochastic: bool,
    params: Params,
    y_hat: Float[Array, "b h/16 w/16 c"],
    seed: Array,
    gamma: Array,
    eta: Array,
    *,
    compute_type: str = "float32",
) -> UInt8[Array, "b h w 3"]:
    """Decodes ŷ: context maps, then S denoising steps from γ·noise. Traced once per (model, S, size, type)."""
    model = merge(config, params, unet_dtype=COMPUTE_TYPES[compute_type])
    context = model.compressor.context_decoder(y_hat)
    batch, height, width, _ = context[0].shape

    def noise(stream):
        return jnp.broadcast_to(picture_noise(seed, stream, height, width), (batch, height, width, 3))

    inputs = sampling_steps(schedule_for(config), config.prediction, steps)
    unet, features = model.unet.prepare(context), model.unet.embed(jnp.asarray(inputs.time))
    picture = ddim_sample(
        lambda x, features: unet(x, tuple(f[None] for f in features)),
        config.prediction,
        gamma * noise(0),
        inputs,
        embedded=features,
        eta=eta,
        step_noise=(lambda k: noise(1 + k)) if stochastic else None,
    )
    return to_uint8(picture)
