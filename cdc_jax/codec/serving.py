"""A model's networks as StableHLO programs with the weights inside, which `jax.export` loads without this package.

    encoder.stablehlo   images uint8 [b, h, w, 3] → y float32 [b, h/16, w/16, c], z float32 [b, h/64, w/64, Z],
                        medians float32 [Z]; the symbols of z are round(z - medians)
    decoder.stablehlo   ŷ float32 [b, h/16, w/16, c], and for a variable-rate model the quality float32 [b], 0 to 1 →
                        images uint8 [b, h, w, 3]

h and w are multiples of 64. The decoder uses the model's default steps and γ, seed 0 and η = 0. The entropy coder and
`coding.npz` do the rest. A program for any size sums the attention in different parts than `Codec`, so a pixel may
differ by 1 of 255. A program for one size returns exactly the pixels of `Codec`.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cdc_jax.codec.decoding import sample
from cdc_jax.errors import BundleError, ConfigError
from cdc_jax.io.pixels import to_uint8, to_unit_range
from cdc_jax.models.config import LATENT_STRIDE, STRIDE, ModelConfig
from cdc_jax.models.params import merge

ENCODER_FILE, DECODER_FILE = "encoder.stablehlo", "decoder.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
_MEDIANS = "compressor.prior.medians"


@dataclass(frozen=True)
class Serving:
    """Encoder and decoder for batches of any number of images, on CPUs, CUDA GPUs and TPUs.

    Attributes:
      size: height and width of the padded images in pixels, multiples of 64; None: any.
    """

    size: tuple[int, int] | None = None

    def check(self) -> None:
        """Checks in advance that `save` can do its work.

        Raises:
          BundleError: the package that serializes programs is missing.
          ConfigError: the size is not a multiple of 64.
        """
        if importlib.util.find_spec("flatbuffers") is None:
            raise BundleError("Programs for serving need the package flatbuffers: pip install '.[serving]'.")
        if self.size is not None and any(side < STRIDE or side % STRIDE for side in self.size):
            height, width = self.size
            raise ConfigError(f"The size {width}x{height} cannot be served: take multiples of {STRIDE} pixels.")

    def save(self, folder: Path, config: ModelConfig, params: Mapping[str, Array]) -> None:
        """Writes both programs of a model into its bundle's folder."""
        batch, rows, columns = jax.export.symbolic_shape("b, h, w")
        height, width = self.size or (STRIDE * rows, STRIDE * columns)
        cells = (batch, height // LATENT_STRIDE, width // LATENT_STRIDE, config.latent_channels)
        images = jax.ShapeDtypeStruct((batch, height, width, 3), np.uint8)
        latents = [jax.ShapeDtypeStruct(cells, np.float32)]
        if config.variable_rate:
            latents.append(jax.ShapeDtypeStruct((batch,), np.float32))
        for name, function, inputs in ((ENCODER_FILE, _encode, [images]), (DECODER_FILE, _decode, latents)):
            (folder / name).write_bytes(_program(functools.partial(function, config), params, inputs))


def _encode(config: ModelConfig, params: Mapping[str, Array], images: Array) -> tuple[Array, Array, Array]:
    return (*merge(config, params).compressor.encode(to_unit_range(images)), params[_MEDIANS])


def _decode(config: ModelConfig, params: Mapping[str, Array], y_hat: Array, quality: Array | None = None) -> Array:
    numbers = np.uint32(0), np.float32(config.decode_gamma), np.float32(0)
    return to_uint8(sample(config, config.decode_steps, False, params, y_hat, *numbers, quality))


def _program(function: Callable, params: Mapping[str, Array], inputs: list[jax.ShapeDtypeStruct]) -> bytes:
    """The serialized program of `function(params, *inputs)`, including the weights that it uses."""
    names = sorted(params)
    shapes = {name: jax.ShapeDtypeStruct(params[name].shape, np.float32) for name in names}
    used = jax.export.export(jax.jit(function), platforms=PLATFORMS)(shapes, *inputs).module_kept_var_idx
    kept = {name for index, name in enumerate(names) if index in used}

    def closed(*arguments):
        # The barriers keep the compiler from folding the weights into constants, which would change bits.
        weights = {
            name: jax.lax.optimization_barrier(jnp.asarray(params[name])) if name in kept else jnp.zeros(leaf.shape)
            for name, leaf in shapes.items()
        }
        return function(weights, *arguments)

    return bytes(jax.export.export(jax.jit(closed), platforms=PLATFORMS)(*inputs).serialize())
