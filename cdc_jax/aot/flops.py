"""Floating-point operations of a traced program: its matrix products and convolutions, with loops counted in full.

Compilers count the body of a loop once, and a decoder is a loop. Counts of other operations differ between compilers,
whereas this count depends only on the program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Traced = ClosedJaxpr | Jaxpr


def product_flops(program: Traced, platform: str) -> int:
    """Twice the number of multiply-accumulates of all `dot_general`s and convolutions, over the whole batch.

    The body of a scan counts once per iteration, that of a `while` loop once, and that of a `shard_map` once per
    device. A conditional counts as its most expensive branch; platform-dependent branches count as this platform's.
    Products with the zeros that a transposed convolution inserts do not count; products with padding do.

    Args:
      program: `jax.jit(f).trace(...).jaxpr` or `jax.make_jaxpr(f)(...)`.
      platform: "cpu", "tpu" or "cuda".
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    return sum(_equation_flops(equation, platform) for equation in _used(jaxpr))


def _used(jaxpr: Jaxpr) -> Iterator:
    """The equations that the results depend on. Compilers remove the others, such as an unused loss value."""
    used = {variable for variable in jaxpr.outvars if not isinstance(variable, Literal)}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not used.isdisjoint(equation.outvars):
            used.update(variable for variable in equation.invars if not isinstance(variable, Literal))
            yield equation


def _equation_flops(equation, platform: str) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, kernel_axes = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        taps = math.prod(kernel[axis] for axis in kernel_axes[1:])  # input channels per group × window
        return 2 * math.prod(equation.outvars[0].aval.shape) * taps // math.prod(params["lhs_dilation"])
    if name == "cond":
        return max(product_flops(branch, platform) for branch in _branches(params, platform))
    repeats = params["length"] if name == "scan" else params["mesh"].size if name == "shard_map" else 1
    inner = [value for value in params.values() if isinstance(value, Traced)]
    return repeats * sum(product_flops(part, platform) for part in inner)


def _branches(params: dict, platform: str) -> tuple:
    """The branches that may run: of `jax.lax.platform_dependent` this platform's, or else the default (name None)."""
    branches, names = params["branches"], params.get("branches_platforms")
    if names is None:
        return branches
    own = [branch for branch, of in zip(branches, names, strict=True) if of is not None and platform in of]
    return tuple(own) or tuple(branch for branch, of in zip(branches, names, strict=True) if of is None)
