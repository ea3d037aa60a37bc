"""p(z) in training: the deep factorized prior (Ballé et al. 2018, appendix 6.1).

Each channel has its own density. Its CDF is the sigmoid of a small monotone network 1 → 3 → 3 → 3 → 1, with softplus
weights and x + tanh(a)·tanh(x) between the layers. `models.initialization` creates the initial weights.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cdc_jax.entropy.quantize import at_least_float32
from cdc_jax.entropy.weight import Weight

FILTERS = (1, 3, 3, 3, 1)


class FactorizedPrior(nnx.Module):
    """The density of z per channel, and the medians on which quantization is centered."""

    def __init__(self, channels: int):
        def weight(*shape):
            return Weight(channels, *shape)

        layers = list(zip(FILTERS[:-1], FILTERS[1:], strict=True))
        self.weights = nnx.List([weight(fan_in, fan_out) for fan_in, fan_out in layers])
        self.biases = nnx.List([weight(fan_out) for _, fan_out in layers])
        self.gains = nnx.List([weight(fan_out) for _, fan_out in layers[:-1]])  # none after the last layer
        self.medians = weight()

    def cdf_logits(self, x: Float[Array, "n c"], *, frozen: bool = False) -> Float[Array, "n c"]:
        """Logit of the CDF at x. `frozen` stops gradients to the network's weights, but not to x."""
        freeze = jax.lax.stop_gradient if frozen else lambda value: value
        h = x[..., None]
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight = jax.nn.softplus(freeze(weight[...]))
            # An explicit sum of three float32 products, since a matrix unit might use bfloat16.
            h = sum(h[..., i, None] * weight[:, i] for i in range(weight.shape[1])) + freeze(bias[...])
            if k < len(self.gains):
                h = h + jnp.tanh(freeze(self.gains[k][...])) * jnp.tanh(h)
        return h[..., 0]

    def likelihood(self, z: Float[Array, "b h w c"], *, frozen: bool = False) -> Float[Array, "b h w c"]:
        """Probability of the unit bin around z, in [0, 1]. `frozen` stops gradients to the weights, but not to z."""
        flat = at_least_float32(z).reshape(-1, z.shape[-1])
        lower, upper = (self.cdf_logits(flat + edge, frozen=frozen) for edge in (-0.5, 0.5))
        # Computed on the side of the tail, where the sigmoids do not saturate at 1.
        sign = -jax.lax.stop_gradient(jnp.sign(lower + upper))
        return jnp.abs(jax.nn.sigmoid(sign * upper) - jax.nn.sigmoid(sign * lower)).reshape(z.shape)

    def median_loss(self) -> Float[Array, ""]:
        """Σ |logit CDF(median)|, zero if the medians are right. Its gradient reaches only the medians."""
        return jnp.sum(jnp.abs(self.cdf_logits(self.medians[...][None, :], frozen=True)))
