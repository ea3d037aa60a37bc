"""Module weights, which have only a shape until a value is assigned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class Weight(nnx.Param):
    """A float32 weight without a value. `models.params.merge` or an assignment to `weight[...]` sets it."""

    def __init__(self, *shape: int):
        super().__init__(jax.ShapeDtypeStruct(shape, jnp.float32))

    @property
    def is_set(self) -> bool:
        """Whether the weight has a value."""
        return not isinstance(self.get_value(), jax.ShapeDtypeStruct)

    def __getitem__(self, key):
        if not self.is_set:
            raise TypeError("This module has no weights yet: models.params.merge makes a model that has.")
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        if self.is_set:
            super().__setitem__(key, value)
        elif key is not ... or jnp.shape(value) != self.get_value().shape:
            raise ValueError(f"A first value must be a whole one, of shape {self.get_value().shape}.")
        else:
            self.set_value(jnp.asarray(value))
