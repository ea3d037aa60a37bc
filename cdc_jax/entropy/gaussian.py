"""p(y | ẑ): a Gaussian integrated over unit bins (Minnen et al. 2018), with continuous or with indexed scales.

Training uses the network's σ as it is. Files are coded with the nearest of 256 scales, whose *index* selects a table;
`scale_index` and `indexed_likelihood` are the float counterparts of that, to measure what the indexing costs.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import erfc
from jaxtyping import Array, Float, Int

from cdc_jax.entropy.tables import scale_table


def gaussian_likelihood(
    y: Float[Array, "..."], mean: Float[Array, "..."], scale: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Probability of the unit bin around y under N(mean, scale²), in (0, 1).

    Taken on the tail side, Φ((½ − |y−μ|)/σ) − Φ((−½ − |y−μ|)/σ), so that small values keep their precision.
    """
    distance = jnp.abs(y - mean)
    return _normal_cdf((0.5 - distance) / scale) - _normal_cdf((-0.5 - distance) / scale)


def scale_index(scale: Float[Array, "..."]) -> Int[Array, "..."]:
    """0 … 255: the scale of `tables.scale_table` that is nearest in the logarithm; beyond its ends, the end."""
    scales = scale_table()
    midpoints = jnp.asarray((scales[:-1] * scales[1:]) ** 0.5, jnp.float32)
    return jnp.searchsorted(midpoints, scale, side="right")


def indexed_likelihood(
    y: Float[Array, "..."], mean: Float[Array, "..."], index: Int[Array, "..."]
) -> Float[Array, "..."]:
    """`gaussian_likelihood` under the scale of an index 0 … 255: what a file's tables give y, up to rounding."""
    return gaussian_likelihood(y, mean, jnp.asarray(scale_table(), jnp.float32)[index])


def _normal_cdf(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return 0.5 * erfc(x * -(2.0**-0.5))
