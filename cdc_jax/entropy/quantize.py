"""Quantization as training sees it: rounding with a straight-through gradient, and the rate's lower bound."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LIKELIHOOD_MIN = 1e-9


def straight_through_round(x: Float[Array, "..."], offset: Float[Array, "..."]) -> Float[Array, "..."]:
    """round(x − offset) + offset, half to even; the gradient passes to x unchanged, to offset not at all."""
    quantized = jnp.round(x - offset) + offset
    return x + jax.lax.stop_gradient(quantized - x)


@jax.custom_vjp
def lower_bound(x: Float[Array, "..."], bound: float) -> Float[Array, "..."]:
    """max(x, bound), whose gradient also passes below the bound where it would raise x (Ballé et al. 2018)."""
    return jnp.maximum(x, bound)


def _lower_bound_forward(x, bound):
    return jnp.maximum(x, bound), (x >= bound, jnp.zeros_like(bound))


def _lower_bound_backward(residuals, gradient):
    above, no_gradient = residuals
    # Descent moves against the gradient: a negative one raises x.
    return jnp.where(above | (gradient < 0), gradient, 0.0), no_gradient


lower_bound.defvjp(_lower_bound_forward, _lower_bound_backward)


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Half precision becomes float32; it makes rates infinite."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def likelihood_bits(likelihood: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """Σ −log₂ p per image, p bounded below at 1e-9."""
    likelihood = at_least_float32(likelihood)
    bounded = lower_bound(likelihood, jnp.asarray(LIKELIHOOD_MIN, likelihood.dtype))
    return -jnp.sum(jnp.log2(bounded), axis=tuple(range(1, likelihood.ndim)))
