"""The whole model (Yang & Mandt, "Lossy Image Compression with Conditional Diffusion Models", NeurIPS 2023).

    image ─ Encoder ─► y ─ round(y − μ) + μ ─► ŷ ─ ContextDecoder ─► 4 maps (1, 1/2, 1/4, 1/8)
                       │                    ▲                          │ concatenated to the input
              HyperEncoder ─► z ─► ẑ ─► HyperDecoder ─► (μ, σ)         ▼ of U-Net levels 0 to 3
                                  │                           noise ─ UNet, S DDIM steps ─► image
                            FactorizedPrior

The file holds z and y, coded with p(z) from the prior and p(y | ẑ) = N(μ, σ²) over unit bins.
"""

from __future__ import annotations

from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.gaussian import gaussian_likelihood
from cdc_jax.entropy.quantize import likelihood_bits, straight_through_round
from cdc_jax.models.compressor import Compressor
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.unet import UNet


class Compressed(NamedTuple):
    """What the compressor makes of a batch of images.

    Attributes:
      y, z: latents before quantization, [b, h/16, w/16, 4d] and [b, h/64, w/64, 4d].
      y_hat, z_hat: what the decoder sees of them.
      mean, scale: μ and σ of y.
      rate_bits: −log₂ p of y and z together, per image [b].
      context: the four maps for the U-Net.
    """

    y: Float[Array, "b h/16 w/16 c"]
    z: Float[Array, "b h/64 w/64 c"]
    y_hat: Float[Array, "b h/16 w/16 c"]
    z_hat: Float[Array, "b h/64 w/64 c"]
    mean: Float[Array, "b h/16 w/16 c"]
    scale: Float[Array, "b h/16 w/16 c"]
    rate_bits: Float[Array, " b"]
    context: tuple[Float[Array, "b _ _ _"], ...]


class CDC(nnx.Module):
    """Compressor and U-Net."""

    def __init__(self, config: ModelConfig, *, unet_dtype=None, unet_precision: str | None = "highest"):
        self.config = config
        self.compressor = Compressor(config)
        self.unet = UNet(config, dtype=unet_dtype, precision=unet_precision)

    def compress(
        self,
        image: Float[Array, "b h w 3"],
        noise: tuple[Float[Array, "b h/16 w/16 c"], Float[Array, "b h/64 w/64 c"]] | None = None,
    ) -> Compressed:
        """Latents, their rate, and the context maps.

        Args:
          image: in [−1, 1]; h and w multiples of 64.
          noise: uniform in [−½, ½) for y and z. Given, the rate is that of y + u and z + u' (training);
            without, that of the rounded values (test). The decoder sees rounded values in both.
        """
        parts = self.compressor
        y, z = parts.encode(image)
        z_hat = straight_through_round(z, parts.prior.medians[...])
        mean, scale = parts.hyper_decoder(z_hat)
        y_hat = straight_through_round(y, mean)
        y_rated, z_rated = (y_hat, z_hat) if noise is None else (y + noise[0], z + noise[1])
        rate_bits = likelihood_bits(gaussian_likelihood(y_rated, mean, scale))
        rate_bits += likelihood_bits(parts.prior.likelihood(z_rated))
        return Compressed(y, z, y_hat, z_hat, mean, scale, rate_bits, parts.context_decoder(y_hat))
