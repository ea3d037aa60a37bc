"""p(y | ẑ) in training: a Gaussian integrated over unit bins (Minnen et al. 2018), with the network's exact σ.

Files are instead coded with the nearest of 256 scales, whose index selects a table (`entropy.tables`).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import erfc
from jaxtyping import Array, Float


def gaussian_likelihood(
    y: Float[Array, "..."], mean: Float[Array, "..."], scale: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Probability of the unit bin around y under N(mean, scale²), in (0, 1).

    Computed on the side of the tail, as Φ((½ − |y−μ|)/σ) − Φ((−½ − |y−μ|)/σ), so that small values stay precise.
    """
    distance = jnp.abs(y - mean)
    return _normal_cdf((0.5 - distance) / scale) - _normal_cdf((-0.5 - distance) / scale)


def _normal_cdf(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return 0.5 * erfc(x * -(2.0**-0.5))
