"""Quantization in training: rounding with a straight-through gradient, and the lower bound of likelihoods."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LIKELIHOOD_MIN = 1e-9


def straight_through_round(x: Float[Array, "..."], offset: Float[Array, "..."]) -> Float[Array, "..."]:
    """round(x − offset) + offset, half to even. The gradient is passed unchanged to x, and not to the offset."""
    quantized = jnp.round(x - offset) + offset
    return x + jax.lax.stop_gradient(quantized - x)


@jax.custom_vjp
def lower_bound(x: Float[Array, "..."], bound: float) -> Float[Array, "..."]:
    """max(x, bound). Below the bound, gradients that would increase x are also passed (Ballé et al. 2018)."""
    return jnp.maximum(x, bound)


def _lower_bound_forward(x, bound):
    return jnp.maximum(x, bound), (x >= bound, jnp.zeros_like(bound))


def _lower_bound_backward(residuals, gradient):
    above, no_gradient = residuals
    # Descent moves against the gradient: a negative gradient increases x.
    return jnp.where(above | (gradient < 0), gradient, 0.0), no_gradient


lower_bound.defvjp(_lower_bound_forward, _lower_bound_backward)


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Converts half precision to float32, since half precision can make rates infinite."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def likelihood_bits(likelihood: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """Σ −log₂ p per image, in bits, with p bounded below by 1e-9."""
    likelihood = at_least_float32(likelihood)
    bounded = lower_bound(likelihood, jnp.asarray(LIKELIHOOD_MIN, likelihood.dtype))
    return -jnp.sum(jnp.log2(bounded), axis=tuple(range(1, likelihood.ndim)))
