"""The whole model (Yang & Mandt, "Lossy Image Compression with Conditional Diffusion Models", NeurIPS 2023).

    image ─ Encoder ─► y ─ round(y − μ) + μ ─► ŷ ─ ContextDecoder ─► 4 maps (1, 1/2, 1/4, 1/8)
                       │                    ▲                          │ concatenated to the input
              HyperEncoder ─► z ─► ẑ ─► HyperDecoder ─► (μ, σ)         ▼ of U-Net levels 0 to 3
                                  │                           noise ─ UNet, S DDIM steps ─► image
                            FactorizedPrior

A compressed file contains z and y, coded with p(z) from the prior and p(y | ẑ) = N(μ, σ²), integrated over unit bins.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.gaussian import gaussian_likelihood
from cdc_jax.entropy.quantize import likelihood_bits, straight_through_round
from cdc_jax.models.compressor import SCALE_MIN, Compressor, Context
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.unet import UNet


class Compressed(NamedTuple):
    """A batch of images, compressed.

    Attributes:
      y, z: latents before quantization, at 1/16 and 1/64 of the image's resolution.
      y_hat, z_hat: the latents after quantization, as the decoder receives them.
      mean, scale: μ in the units of y, and σ in quantization steps.
      rate_bits: −log₂ p of y and z together, in bits per image.
      hyper_bits: z's part of `rate_bits`.
      context: the context maps for the U-Net.
    """

    y: Float[Array, "b h/16 w/16 c"]
    z: Float[Array, "b h/64 w/64 _"]
    y_hat: Float[Array, "b h/16 w/16 c"]
    z_hat: Float[Array, "b h/64 w/64 _"]
    mean: Float[Array, "b h/16 w/16 c"]
    scale: Float[Array, "b h/16 w/16 c"]
    rate_bits: Float[Array, " b"]
    hyper_bits: Float[Array, " b"]
    context: Context


class CDC(nnx.Module):
    """Compressor and U-Net.

    A model that is constructed directly has no weights, only their shapes, and raises an error when called.
    `models.params.merge` returns one with weights.

    Args:
      config: the architecture.
      unet_dtype: dtype of the U-Net's products; None: that of the weights.
      unet_precision: precision of the U-Net's products, as in `jax.lax`.
    """

    def __init__(self, config: ModelConfig, *, unet_dtype=None, unet_precision: str | None = "highest"):
        self.config = config
        self.compressor = Compressor(config)
        self.unet = UNet(config, dtype=unet_dtype, precision=unet_precision)

    def compress(
        self,
        image: Float[Array, "b h w 3"],
        noise: tuple[Float[Array, "b h/16 w/16 c"], Float[Array, "b h/64 w/64 _"]] | None = None,
        quality: Float[Array, " b"] | None = None,
    ) -> Compressed:
        """Computes the latents, their rate, and the context maps.

        Args:
          image: in [−1, 1]; h and w multiples of 64.
          noise: (u, u'), uniform in [−½, ½), for training: without the transform, the rate is then that of y + u and
            z + u'; with it, see `_rounded_bits`. None, for evaluation: the rate is that of the rounded values. The
            decoder always receives rounded values.
          quality: from 0 to 1, one per image; required with the transform.
        """
        parts = self.compressor
        y, z = parts.encode(image)
        z_hat = straight_through_round(z, parts.prior.medians[...])
        if parts.transform is None:
            mean, scale = parts.hyper_decoder(z_hat)
            y_hat = straight_through_round(y, mean)
            y_rated, z_rated = (y_hat, z_hat) if noise is None else (y + noise[0], z + noise[1])
            y_bits = likelihood_bits(gaussian_likelihood(y_rated, mean, scale))
            z_bits = likelihood_bits(parts.prior.likelihood(z_rated))
        else:
            log2_gain = parts.transform.log2_gains(quality)
            gain = jnp.exp2(log2_gain)

            def quantize(mean):
                return straight_through_round(y * gain, mean * gain) / gain

            mean, scale = parts.predict_latents(z_hat, jax.lax.stop_gradient(log2_gain), quality, quantize)
            y_hat = quantize(mean)
            y_bits, z_bits = self._rounded_bits(y, z, y_hat, z_hat, mean, scale, gain, noise)
        return Compressed(y, z, y_hat, z_hat, mean, scale, y_bits + z_bits, z_bits, parts.context(y_hat, quality))

    def _rounded_bits(self, y, z, y_hat, z_hat, mean, scale, gain, noise):
        """(bits of y, bits of z) of the rounded values, with or without noise.

        With noise, the gradient with respect to σ and the prior is that of this rate; the gradient with respect to y,
        z, μ and the gains is that of the rate of y + u and z + u', which is smooth. At low rates most symbols are zero:
        scales fitted to noisy values would misestimate the rate of zeros, and rounded zeros would not train μ.
        """
        stop, prior = jax.lax.stop_gradient, self.compressor.prior
        symbols = stop((y_hat - mean) * gain)
        y_bits = likelihood_bits(gaussian_likelihood(symbols, jnp.zeros_like(symbols), scale))
        z_bits = likelihood_bits(prior.likelihood(stop(z_hat)))
        if noise is not None:
            smooth = jnp.maximum(stop(scale / gain) * gain, SCALE_MIN)
            smooth = likelihood_bits(gaussian_likelihood(y * gain + noise[0], mean * gain, smooth))
            y_bits += smooth - stop(smooth)
            smooth = likelihood_bits(prior.likelihood(z + noise[1], frozen=True))
            z_bits += smooth - stop(smooth)
        return y_bits, z_bits
