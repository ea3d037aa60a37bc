"""DDIM sampling (Song et al. 2021) as one `lax.scan`, and the noise that it starts from.

The noise is drawn in blocks of 64×64 pixels, from keys that depend only on the seed, the step and the block's position
in the image. So it does not depend on how images are batched, tiled or sharded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cdc_jax.diffusion.process import NoiseLevel, estimate
from cdc_jax.diffusion.schedule import Schedule

BLOCK = 64
START = 0  # random stream of the initial noise; step k uses stream 1 + k

Denoiser = Callable[[Float[Array, "b h w 3"], Any], Float[Array, "b h w 3"]]


class SamplingGrid(NamedTuple):
    """The S sampling steps, noisiest first, as float32 arrays to scan over.

    Attributes:
      time: the network's time input in each step.
      alpha_bar: ᾱ of each step.
      alpha_bar_next: ᾱ' of the next, less noisy step; 1 after the last.
    """

    time: Float[np.ndarray, " S"]
    alpha_bar: Float[np.ndarray, " S"]
    alpha_bar_next: Float[np.ndarray, " S"]


def sampling_grid(schedule: Schedule, prediction: str, steps: int) -> SamplingGrid:
    """Time inputs and noise levels for decoding in S steps.

    The time input is n/T for "x" and "v", and (T−1)/T for S = 1. For "epsilon" it is j/S at step j, counted from the
    last one: the released epsilon models were trained with n/T, but the released code samples with j/S.

    Args:
      schedule: the noise schedule.
      prediction: "x", "epsilon" or "v".
      steps: S, from 1 to T.

    Raises:
      ValueError: `steps` is not between 1 and T.
    """
    timesteps = schedule.ddim_timesteps(steps)
    if prediction == "epsilon" and steps > 1:
        time = np.arange(steps)[::-1] / steps
    else:
        time = timesteps / schedule.num_timesteps
    alpha_bar = schedule.alpha_bar[timesteps]
    return SamplingGrid(time.astype(np.float32), alpha_bar, np.append(alpha_bar[1:], np.float32(1)))


def image_noise(
    seed: int | Array,
    stream: int | Array,
    height: int,
    width: int,
    *,
    first_block: tuple[int | Array, int | Array] = (0, 0),
) -> Float[Array, "h w 3"]:
    """Noise ~ N(0, 1) for an image, or for a part of it. It is the same at the same position in any larger image.

    Args:
      seed: the seed of decoding, 0 ≤ seed < 2³².
      stream: 0 for the initial noise, 1 + k for that of step k.
      height, width: size in pixels, multiples of 64.
      first_block: position of the part in the image, (row, column) in blocks of 64 pixels.
    """
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), stream)

    def block(row, column):
        block_key = jax.random.fold_in(jax.random.fold_in(key, row), column)
        return jax.random.normal(block_key, (BLOCK, BLOCK, 3), jnp.float32)

    rows, columns = (first + jnp.arange(n // BLOCK) for first, n in zip(first_block, (height, width), strict=True))
    blocks = jax.vmap(lambda row: jax.vmap(lambda column: block(row, column))(columns))(rows)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(height, width, 3)


def ddim_step(
    prediction: str,
    output: Float[Array, "... h w 3"],
    x: Float[Array, "... h w 3"],
    alpha_bar: float | Array,
    alpha_bar_next: float | Array,
    *,
    eta: float | Array = 0.0,
    noise: Float[Array, "... h w 3"] | None = None,
) -> Float[Array, "... h w 3"]:
    """One step from x_n to a less noisy x: √ᾱ'·x̂₀ + √(1−ᾱ'−σ²)·ε̂ + σ·N(0, 1), σ = η·√((1−ᾱ')/(1−ᾱ))·√(1−ᾱ/ᾱ').

    Every pixel is computed independently, so the step may be applied to any part of an image.

    Args:
      prediction: what the network predicts: "x", "epsilon" or "v".
      output: the network's prediction.
      x: the network's input x_n.
      alpha_bar, alpha_bar_next: ᾱ of x_n and ᾱ' of the result.
      eta: η, from 0 (deterministic, DDIM) to 1 (ancestral sampling); only used with `noise`.
      noise: noise ~ N(0, 1); None if η is 0.
    """
    estimated = estimate(prediction, output, x, NoiseLevel.of(alpha_bar))
    spread = jnp.float32(0)
    if noise is not None:
        spread = eta * jnp.sqrt((1 - alpha_bar_next) / (1 - alpha_bar)) * jnp.sqrt(1 - alpha_bar / alpha_bar_next)
    direction = jnp.sqrt(jnp.maximum(1 - alpha_bar_next - spread**2, 0))
    x = jnp.sqrt(alpha_bar_next) * estimated.image + direction * estimated.noise
    return x if noise is None else x + spread * noise


def ddim_sample(
    denoise: Denoiser,
    prediction: str,
    start: Float[Array, "b h w 3"],
    steps: SamplingGrid,
    *,
    embedded: Any = None,
    eta: float | Array = 0.0,
    step_noise: Callable[[Array], Float[Array, "b h w 3"]] | None = None,
) -> Float[Array, "b h w 3"]:
    """Denoises `start` in S steps, each a `ddim_step`.

    Args:
      denoise: the network: (x_n, time inputs [b]) → its prediction. With `embedded`, its second argument is the step's
        entry of `embedded` instead.
      prediction: what the network predicts: "x", "epsilon" or "v".
      start: γ·ε with ε ~ N(0, 1).
      steps: from `sampling_grid`.
      embedded: precomputed embeddings of the steps' time inputs, a pytree of arrays [S, …].
      eta: η, from 0 (deterministic, DDIM) to 1 (ancestral sampling); only used with `step_noise`.
      step_noise: k → noise ~ N(0, 1) of step k; None if η is 0.

    Returns:
      x̂₀ of the last step, nominally in [−1, 1], not clipped for epsilon.
    """
    batch = start.shape[0]

    def step(x, inputs):
        (k, time, alpha_bar, alpha_bar_next), embedded = inputs
        condition = jnp.full((batch,), time, jnp.float32) if embedded is None else embedded
        noise = None if step_noise is None else step_noise(k)
        return ddim_step(prediction, denoise(x, condition), x, alpha_bar, alpha_bar_next, eta=eta, noise=noise), None

    inputs = ((jnp.arange(len(steps.time)), *map(jnp.asarray, steps)), embedded)
    return jax.lax.scan(step, start, inputs)[0]
