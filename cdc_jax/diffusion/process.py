"""The forward diffusion process, the quantities that a network can predict, and the training loss.

    (1)  x_n = √ᾱ·x₀ + √(1−ᾱ)·ε                              noising
    (2)  x̂₀ = (x_n − √(1−ᾱ)·ε̂) / √ᾱ                          from a predicted noise
    (3)  v  = √ᾱ·ε − √(1−ᾱ)·x₀,   x̂₀ = √ᾱ·x_n − √(1−ᾱ)·v̂     velocity (Salimans & Ho 2022)
    (4)  ε̂  = (x_n − √ᾱ·x̂₀) / √(1−ᾱ)                         from a predicted image
    (5)  SNR = ᾱ / (1−ᾱ)
    (6)  Min-SNR-5 weight (Hang et al. 2023): x: max(min(SNR, 5), floor); v: min(SNR, 5) / (SNR + 1); epsilon: 1

The paper uses the Min-SNR weight (6) with floor 0. It nearly removes the noisiest levels, at which the U-Net learns to
use the context maps, from the loss; that is why the paper's recipe needs its long warmup. Configurations for little
compute use floor 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

SNR_MAX = 5.0


class NoiseLevel(NamedTuple):
    """Noise levels, as scalars or one per image.

    Attributes:
      signal: √ᾱ.
      noise: √(1−ᾱ).
    """

    signal: Float[Array, "..."]
    noise: Float[Array, "..."]

    @classmethod
    def of(cls, alpha_bar: Float[Array, "..."]) -> NoiseLevel:
        """The noise levels for float32 ᾱ in (0, 1]."""
        return cls(jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar))

    def per_image(self) -> NoiseLevel:
        """Reshapes [b] to [b, 1, 1, 1], which can be broadcast against images."""
        return NoiseLevel(self.signal[:, None, None, None], self.noise[:, None, None, None])


class Estimate(NamedTuple):
    """Estimates of the clean image and the noise that explain a noisy image by (1).

    Attributes:
      image: x̂₀.
      noise: ε̂.
    """

    image: Float[Array, "b h w 3"]
    noise: Float[Array, "b h w 3"]


def add_noise(
    image: Float[Array, "b h w 3"], noise: Float[Array, "b h w 3"], level: NoiseLevel
) -> Float[Array, "b h w 3"]:
    """The noisy image x_n by (1), for an image in [−1, 1] and noise ~ N(0, 1)."""
    return level.signal * image + level.noise * noise


class Prediction:
    """A quantity that the network predicts, given a noisy image, and its loss.

    Attributes:
      clips: whether an estimated image is clipped to [−1, 1] and the noise recomputed from it.
    """

    clips = True

    def target(
        self, image: Float[Array, "b h w 3"], noise: Float[Array, "b h w 3"], level: NoiseLevel
    ) -> Float[Array, "b h w 3"]:
        """The quantity itself, for a known image and noise."""
        raise NotImplementedError

    def image(
        self, output: Float[Array, "b h w 3"], noisy: Float[Array, "b h w 3"], level: NoiseLevel
    ) -> Float[Array, "b h w 3"]:
        """x̂₀ computed from the network's output, not clipped."""
        raise NotImplementedError

    def error(self, difference: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """The error of each value, given its difference from the target."""
        return difference**2

    def weight(self, alpha_bar: Float[Array, " b"], floor: float) -> Float[Array, " b"] | None:
        """The weight (6) of each image's error; None: 1."""
        raise NotImplementedError


class ImagePrediction(Prediction):
    """The clean image ("x")."""

    def target(self, image, noise, level):
        return image

    def image(self, output, noisy, level):
        return output

    def weight(self, alpha_bar, floor):
        return jnp.maximum(jnp.minimum(signal_to_noise(alpha_bar), SNR_MAX), floor)


class NoisePrediction(Prediction):
    """The noise ("epsilon"), with the L1 error of the paper's implementation."""

    clips = False

    def target(self, image, noise, level):
        return noise

    def image(self, output, noisy, level):
        return (noisy - level.noise * output) / level.signal  # (2)

    def error(self, difference):
        return jnp.abs(difference)

    def weight(self, alpha_bar, floor):
        return None


class VelocityPrediction(Prediction):
    """The velocity ("v"); see (3)."""

    def target(self, image, noise, level):
        return level.signal * noise - level.noise * image

    def image(self, output, noisy, level):
        return level.signal * noisy - level.noise * output

    def weight(self, alpha_bar, floor):
        snr = signal_to_noise(alpha_bar)
        return jnp.minimum(snr, SNR_MAX) / (snr + 1)


PREDICTIONS = {"x": ImagePrediction(), "epsilon": NoisePrediction(), "v": VelocityPrediction()}


def signal_to_noise(alpha_bar: Float[Array, "..."]) -> Float[Array, "..."]:
    """Equation (5)."""
    return alpha_bar / (1 - alpha_bar)


def target(
    prediction: str, image: Float[Array, "b h w 3"], noise: Float[Array, "b h w 3"], level: NoiseLevel
) -> Float[Array, "b h w 3"]:
    """The target of the network's prediction "x", "epsilon" or "v", for a known image and noise."""
    return PREDICTIONS[prediction].target(image, noise, level)


def estimate(
    prediction: str, output: Float[Array, "b h w 3"], noisy: Float[Array, "b h w 3"], level: NoiseLevel
) -> Estimate:
    """Estimates the clean image and the noise from the network's output.

    For "x" and "v", x̂₀ is clipped to [−1, 1] and ε̂ computed from it by (4). For "epsilon", x̂₀ follows from (2) and is
    not clipped.

    Values that are not finite become NaN rather than black or white, so that they are visible in the last step's x̂₀.

    Args:
      prediction: "x", "epsilon" or "v".
      output: the network's prediction.
      noisy: its input x_n.
      level: the noise level of `noisy`.
    """
    kind = PREDICTIONS[prediction]
    image = kind.image(output, noisy, level)
    if not kind.clips:
        return Estimate(image, output)
    image = jnp.where(jnp.isfinite(image), jnp.clip(image, -1, 1), jnp.nan)
    return Estimate(image, (noisy - level.signal * image) / level.noise)


def one_step_image(
    prediction: str, output: Float[Array, "b h w 3"], noisy: Float[Array, "b h w 3"], level: NoiseLevel
) -> Float[Array, "b h w 3"]:
    """x̂₀ computed from the network's output by (2) or (3), not clipped. The arguments are as in `estimate`."""
    return PREDICTIONS[prediction].image(output, noisy, level)


def diffusion_loss(
    prediction: str,
    output: Float[Array, "b h w 3"],
    image: Float[Array, "b h w 3"],
    noise: Float[Array, "b h w 3"] | None,
    alpha_bar: Float[Array, " b"],
    *,
    weight_floor: float = 0.0,
    importance: Float[Array, " b"] | None = None,
) -> Float[Array, ""]:
    """The weighted error of predictions, averaged over pixels and batch: L2 for "x" and "v", L1 for "epsilon".

    Args:
      prediction: "x", "epsilon" or "v".
      output: the network's predictions.
      image, noise: the clean images and the noise in the network's input, see (1); "x" does not need the noise.
      alpha_bar: ᾱ of each image's noise level.
      weight_floor: lower bound of the Min-SNR weight (6), for "x" only; 0 in the paper. At 0, the noisiest level is
        hardly trained, and so a model that decodes in a single step.
      importance: an additional weight of each image; None: 1.
    """
    kind = PREDICTIONS[prediction]
    wanted = kind.target(image, noise, NoiseLevel.of(alpha_bar).per_image())
    error = jnp.mean(kind.error(output - wanted), axis=(1, 2, 3))
    importance = 1.0 if importance is None else importance
    weight = kind.weight(alpha_bar, weight_floor)
    return jnp.mean(importance * error if weight is None else importance * weight * error)
