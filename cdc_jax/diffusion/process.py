"""The noising process, what a network may predict of it, and the training loss.

    (1)  x_n = √ᾱ·x₀ + √(1−ᾱ)·ε                              noising
    (2)  x̂₀ = (x_n − √(1−ᾱ)·ε̂) / √ᾱ                          from a predicted noise
    (3)  v  = √ᾱ·ε − √(1−ᾱ)·x₀,   x̂₀ = √ᾱ·x_n − √(1−ᾱ)·v̂     velocity (Salimans & Ho 2022)
    (4)  ε̂  = (x_n − √ᾱ·x̂₀) / √(1−ᾱ)                         from a predicted image
    (5)  SNR = ᾱ / (1−ᾱ)
    (6)  Min-SNR-5 weight (Hang et al. 2023): x: max(min(SNR, 5), floor); v: min(SNR, 5) / (SNR + 1); epsilon: 1

The Min-SNR weight (6) with floor 0 is the paper's; it all but silences the noisy steps and with them the content, which
is why the original needs its long warmup. Configurations meant for little compute use floor 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

SNR_MAX = 5.0


class NoiseLevel(NamedTuple):
    """√ᾱ and √(1−ᾱ) of one noise level, scalars or one per image."""

    signal: Float[Array, "..."]
    noise: Float[Array, "..."]

    @classmethod
    def of(cls, alpha_bar: Float[Array, "..."]) -> NoiseLevel:
        """From float32 ᾱ in (0, 1]."""
        return cls(jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar))

    def per_image(self) -> NoiseLevel:
        """[b] → [b, 1, 1, 1], to meet images."""
        return NoiseLevel(self.signal[:, None, None, None], self.noise[:, None, None, None])


class Estimate(NamedTuple):
    """One prediction seen both ways."""

    image: Float[Array, "b h w 3"]
    noise: Float[Array, "b h w 3"]


def add_noise(
    image: Float[Array, "b h w 3"], noise: Float[Array, "b h w 3"], level: NoiseLevel
) -> Float[Array, "b h w 3"]:
    """Equation (1)."""
    return level.signal * image + level.noise * noise


def target(
    prediction: str, image: Float[Array, "b h w 3"], noise: Float[Array, "b h w 3"], level: NoiseLevel
) -> Float[Array, "b h w 3"]:
    """What the network should have predicted; (3) for v."""
    if prediction == "x":
        return image
    if prediction == "epsilon":
        return noise
    return level.signal * noise - level.noise * image


def estimate(
    prediction: str, output: Float[Array, "b h w 3"], noisy: Float[Array, "b h w 3"], level: NoiseLevel
) -> Estimate:
    """Turns the network's output into (x̂₀, ε̂): the one place that converts between predictions.

    x and v: x̂₀ is clipped to [−1, 1] and the noise recomputed from it by (4). epsilon: (2), not clipped.
    """
    if prediction == "epsilon":
        return Estimate(one_step_image(prediction, output, noisy, level), output)
    image = jnp.clip(one_step_image(prediction, output, noisy, level), -1, 1)
    return Estimate(image, (noisy - level.signal * image) / level.noise)


def one_step_image(
    prediction: str, output: Float[Array, "b h w 3"], noisy: Float[Array, "b h w 3"], level: NoiseLevel
) -> Float[Array, "b h w 3"]:
    """x̂₀ by (2) or (3), not clipped."""
    if prediction == "x":
        return output
    if prediction == "epsilon":
        return (noisy - level.noise * output) / level.signal
    return level.signal * noisy - level.noise * output


def diffusion_loss(
    prediction: str,
    output: Float[Array, "b h w 3"],
    image: Float[Array, "b h w 3"],
    noise: Float[Array, "b h w 3"],
    alpha_bar: Float[Array, " b"],
    *,
    weight_floor: float = 0.0,
    importance: Float[Array, " b"] | None = None,
) -> Float[Array, ""]:
    """Weighted error of the prediction, averaged over pixels and batch: L2 for x and v, L1 for epsilon.

    Args:
      prediction: "x", "epsilon" or "v".
      output: the network's prediction at the noise level of alpha_bar.
      image, noise: what the noisy input was made of by (1).
      alpha_bar: ᾱ of each image's level.
      weight_floor: lower bound of the Min-SNR weight (6) of x; 0 in the paper.
      importance: another weight of each image; None: 1.
    """
    wanted = target(prediction, image, noise, NoiseLevel.of(alpha_bar).per_image())
    importance = 1.0 if importance is None else importance
    if prediction == "epsilon":
        return jnp.mean(importance * jnp.mean(jnp.abs(output - wanted), axis=(1, 2, 3)))
    error = jnp.mean((output - wanted) ** 2, axis=(1, 2, 3))
    snr = alpha_bar / (1 - alpha_bar)
    clipped = jnp.minimum(snr, SNR_MAX)
    weight = clipped / (snr + 1) if prediction == "v" else jnp.maximum(clipped, weight_floor)
    return jnp.mean(importance * weight * error)
