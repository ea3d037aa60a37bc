"""Initial weights, by name, drawn with NumPy: the same on every machine and device, without compiling anything.

They are PyTorch's defaults, which the training recipe starts from: U(±1/√fan_in) for weight and bias of every
convolution and linear layer (a transposed one counts its *output* channels as fan-in), gains 1, norm biases 0. The
prior starts as Ballé et al. (2018) do.
"""

from __future__ import annotations

import zlib

import numpy as np
from jaxtyping import Float

from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import is_transposed, shapes

PRIOR_SCALE = 10.0  # width of z's initial density


def initial_weights(config: ModelConfig, seed: int, *, latent_gain: float = 1.0) -> dict[str, Float[np.ndarray, "..."]]:
    """Fresh float32 weights of a model.

    Args:
      config: the model.
      seed: of the draw; each weight has a stream of its own, after its name.
      latent_gain: factor on the encoder's last layer. At 1, y starts with a standard deviation of about 0.45, which
        rounding erases; at 4, of about 1.8.
    """
    known = {name: leaf.shape for name, leaf in shapes(config).items()}
    weights = {name: _initial(name, known, seed) for name in known}
    for leaf in ("kernel", "bias"):
        weights[f"compressor.encoder.downs.3.{leaf}"] *= np.float32(latent_gain)
    return weights


def _initial(name: str, known: dict[str, tuple[int, ...]], seed: int) -> Float[np.ndarray, "..."]:
    shape = known[name]
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    module, leaf = name.rsplit(".", 1)
    if ".prior." in name:
        return _initial_prior(name, shape, random)
    if module.endswith("norm"):
        return np.full(shape, 1.0 if leaf == "scale" else 0.0, np.float32)
    *kernel, inputs, outputs = known[f"{module}.kernel"]
    fan_in = np.prod(kernel, dtype=int) * (outputs if is_transposed(name) else inputs)
    bound = 1 / np.sqrt(fan_in)
    return random.uniform(-bound, bound, shape).astype(np.float32)


def _initial_prior(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Float[np.ndarray, "..."]:
    if ".weights." in name:  # so that the four layers together stretch z by 1 / PRIOR_SCALE
        return np.full(shape, np.log(np.expm1(PRIOR_SCALE**-0.25 / shape[-1])), np.float32)
    if ".biases." in name:
        return random.uniform(-0.5, 0.5, shape).astype(np.float32)
    return np.zeros(shape, np.float32)
