"""Initial weights by name, drawn with NumPy: identical on every machine and device, and without any compilation.

They follow PyTorch's defaults, as in the paper's implementation: U(±1/√fan_in) for the kernel and bias of every
convolution and linear layer (fan_in of a transposed convolution counts its *output* channels), norm gains 1, norm
biases 0. The prior is initialized as in Ballé et al. (2018).
"""

from __future__ import annotations

import zlib

import numpy as np
from jaxtyping import Float

from cdc_jax.models.compressor import LOG2_SCALE_UNIT
from cdc_jax.models.config import MAX_QUALITY, ModelConfig
from cdc_jax.models.params import shapes, transposed_convolutions
from cdc_jax.models.transform import PATCH_VALUES

PRIOR_SCALE = 10.0  # width of z's initial density
# Factors on layers in a model with the transform. Encoder and U-Net start as small corrections. z is scaled up so that
# it does not round to zero; the hyper decoder's first layer scales it down again.
_TRANSFORM_FACTORS = {
    "compressor.encoder.out": 0.05,
    "compressor.encoder.downs.3": 0.05,
    "compressor.checkerboard.out": 0.05,
    "compressor.hyper_encoder.convs.0": 1.7,
    "compressor.hyper_encoder.convs.1": 1.7,
    "compressor.hyper_encoder.convs.2": 8.0,
    "compressor.hyper_decoder.convs.0": 0.2,
    "compressor.hyper_decoder.convs.1": 1.7,
    "compressor.hyper_decoder.convs.2": 0.2,
    "unet.final_conv": 0.05,
}
_INITIAL_LOG2_SCALE = -1.0


def initial_weights(
    config: ModelConfig,
    seed: int,
    *,
    latent_gain: float = 1.0,
    klt: tuple[Float[np.ndarray, "768 c"], Float[np.ndarray, " c"]] | None = None,
) -> dict[str, Float[np.ndarray, "..."]]:
    """Fresh float32 weights of a model.

    Args:
      config: the model.
      seed: the seed; each weight has its own random stream, which depends on its name.
      latent_gain: factor on the encoder's last layer. With 1, y has a standard deviation of about 0.45 and mostly
        rounds to zero; with 4, about 1.8. Not used with the transform.
      klt: with the transform, its initial basis and the coefficients' standard deviations; None: a random orthonormal
        basis that depends on the seed, for tests.
    """
    known = {name: leaf.shape for name, leaf in shapes(config).items()}
    transposed = transposed_convolutions(config)
    weights = {name: _initial(name, known, transposed, seed) for name in known}
    factors = {"compressor.encoder.downs.3": latent_gain}
    if config.transform:
        factors = _TRANSFORM_FACTORS
        weights |= _initial_transform(config, klt or _random_basis(config.latent_channels, seed))
        scale_bias = weights["compressor.hyper_decoder.convs.2.bias"][config.latent_channels :]
        scale_bias[:] = _INITIAL_LOG2_SCALE / LOG2_SCALE_UNIT
    for module, factor in factors.items():
        for leaf in ("kernel", "bias"):
            if f"{module}.{leaf}" in weights:
                weights[f"{module}.{leaf}"] *= np.float32(factor)
    return weights


def _initial(
    name: str, known: dict[str, tuple[int, ...]], transposed: frozenset[str], seed: int
) -> Float[np.ndarray, "..."]:
    shape = known[name]
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    module, leaf = name.rsplit(".", 1)
    if ".prior." in name:
        return _initial_prior(name, shape, random)
    if module.endswith("transform"):
        return np.zeros(shape, np.float32)
    if module.endswith("norm"):
        return np.full(shape, 1.0 if leaf == "scale" else 0.0, np.float32)
    *kernel, inputs, outputs = known[f"{module}.kernel"]
    fan_in = np.prod(kernel, dtype=int) * (outputs if module in transposed else inputs)
    bound = 1 / np.sqrt(fan_in)
    return random.uniform(-bound, bound, shape).astype(np.float32)


def _initial_transform(config: ModelConfig, klt: tuple[np.ndarray, np.ndarray]) -> dict[str, Float[np.ndarray, "..."]]:
    """T, Tᵀ and the gains that are optimal at high rates: −dD/dbpp = Δ²·ln 2/18 = β, with quantization step Δ."""
    basis, deviations = klt
    betas = [config.beta(MAX_QUALITY * k / max(config.rate_anchors - 1, 1)) for k in range(config.rate_anchors)]
    steps = np.sqrt(18 * np.array(betas) / np.log(2))
    weights = {
        "analysis": basis,
        "synthesis": np.ascontiguousarray(basis.T),
        "deviations": deviations,
        "log2_gain": np.log2(deviations / steps[0]),
    }
    if config.variable_rate:
        growth = np.maximum(np.diff(-np.log2(steps)), 0.01)[:, None]
        weights["gain_steps"] = np.log(np.expm1(growth)) + np.zeros(len(deviations))
    return {f"compressor.transform.{name}": value.astype(np.float32) for name, value in weights.items()}


def _random_basis(channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis, and standard deviations that decrease like those of photographs."""
    matrix = np.random.default_rng(seed).normal(size=(PATCH_VALUES, channels))
    return np.linalg.qr(matrix)[0], 8 / np.arange(1, channels + 1)


def _initial_prior(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Float[np.ndarray, "..."]:
    if ".weights." in name:  # the four layers together scale z by 1 / PRIOR_SCALE
        return np.full(shape, np.log(np.expm1(PRIOR_SCALE**-0.25 / shape[-1])), np.float32)
    if ".biases." in name:
        return random.uniform(-0.5, 0.5, shape).astype(np.float32)
    return np.zeros(shape, np.float32)
