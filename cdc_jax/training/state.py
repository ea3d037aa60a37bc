"""The state of training, and which weights it changes. Needs no optimizer, so exporting a run needs none either."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import ml_collections
from jaxtyping import Array, Int

from cdc_jax.models.params import Params
from cdc_jax.models.weight_groups import Part, decides_symbols, part_of

if TYPE_CHECKING:
    import optax


class TrainState(NamedTuple):
    """The state of training: everything that a step changes.

    Attributes:
      step: the number of completed steps.
      params: all weights by name.
      ema: the moving averages of the trained weights; empty if `ema.enabled` is false.
      optimizer: the optimizer's state, for the trained weights concatenated to one vector.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params
    optimizer: optax.OptState


def is_trained(config: ml_collections.ConfigDict, name: str) -> bool:
    """Whether a weight is trained.

    With `freeze_entropy`, the weights that a file's symbols depend on are not trained. Distillation trains only the
    U-Net.
    """
    if config.distill.steps:
        return part_of(name) is Part.UNET
    return not (config.freeze_entropy and decides_symbols(name))


def best_params(state: TrainState) -> Params:
    """The weights to measure and export: the moving average of every weight that has one."""
    return {**state.params, **state.ema}
