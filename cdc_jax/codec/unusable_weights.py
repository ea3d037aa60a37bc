"""Errors for a model whose networks compute non-finite values. They name the part and the weight at fault.

`load_bundle` detects damaged files. What remains are weights that were already unusable when they were saved, because
training diverged or on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float

from cdc_jax.codec.decoding import context_is_finite
from cdc_jax.errors import BundleError
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import Params


def unusable_encoder(params: Mapping[str, Array], part: str) -> BundleError:
    """The error for latents that cannot be coded. `part` is the module of the compressor that computed them."""
    culprit = _culprit(params, "compressor." + part)
    return BundleError(f"The model's latents are not finite numbers, or too large: {culprit}.")


def unusable_decoder(
    config: ModelConfig, params: Params, y_hat: Float[Array, "b h w c"], quality: Float[Array, " b"] | None
) -> BundleError:
    """The error for an image with values that are not finite, given the arguments of `decoding.sample`."""
    part = "unet" if context_is_finite(config, params, y_hat, quality) else "compressor.context_decoder"
    return BundleError(f"The decoded image is not made of finite numbers: {_culprit(params, part)}.")


def _culprit(params: Mapping[str, Array], part: str) -> str:
    """A clause that names the part and its weight with values that are not finite, or else with the largest value."""
    largest = {
        name: float(np.abs(np.asarray(value)).max())
        for name, value in params.items()
        if name.startswith(f"{part}.") and value.size
    }
    name = max(largest, key=lambda name: np.nan_to_num(largest[name], nan=np.inf))
    return f"the weights of {part} are unusable (the largest is {largest[name]:g}, in {name}): use another model"
