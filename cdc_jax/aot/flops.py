"""Floating-point operations of a traced program: its matrix products and convolutions, with loops counted in full.

Compilers count the body of a loop once, and a decoder is a loop. Counts of other operations differ between compilers,
whereas this count depends only on the program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.lax import Precision

Traced = ClosedJaxpr | Jaxpr

# A TPU multiplies only bfloat16. It splits each float32 operand into 1, 2 or 3 bfloat16 numbers, and computes 1, 3 or 6
# products of these.
_PASSES = {Precision.DEFAULT: 1, Precision.HIGH: 3, Precision.HIGHEST: 6}


class _Rules(NamedTuple):
    """The arguments of `product_flops`."""

    platform: str
    passes: bool
    loops: bool


def product_flops(program: Traced, platform: str, *, passes: bool = False, loops: bool = True) -> int:
    """Twice the number of multiply-accumulates of all `dot_general`s and convolutions, over the whole batch.

    The body of a scan counts once per iteration, that of a `while` loop once, and that of a `shard_map` once per
    device. A conditional counts as its most expensive branch; platform-dependent branches count as this platform's.
    Products with the zeros that a transposed convolution inserts do not count; products with padding do.

    Args:
      program: `jax.jit(f).trace(...).jaxpr` or `jax.make_jaxpr(f)(...)`.
      platform: "cpu", "tpu" or "cuda".
      passes: count the FLOPs of a TPU's matrix unit, which computes a float32 product at the highest precision in 6
        passes of bfloat16, and one at the default precision in 1.
      loops: False: the body of a scan counts once, as compilers count.
    """
    return _flops(program, _Rules(platform, passes, loops))


def _flops(program: Traced, rules: _Rules, needed: Sequence[bool] | None = None) -> int:
    """`needed` tells which results are used; None, or a list of another length: all."""
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    if needed is None or len(needed) != len(jaxpr.outvars):
        needed = [True] * len(jaxpr.outvars)
    return sum(_equation_flops(equation, rules, used) for equation, used in _used(jaxpr, needed))


def _used(jaxpr: Jaxpr, needed: Sequence[bool]) -> Iterator[tuple[Any, list[bool]]]:
    """The equations that the needed results depend on, and which of their results are used.

    Compilers remove the others, such as an unused loss value or the gradients of constants.
    """
    results = (variable for variable, is_needed in zip(jaxpr.outvars, needed, strict=True) if is_needed)
    used = {variable for variable in results if not isinstance(variable, Literal)}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not used.isdisjoint(equation.outvars):
            yield equation, [variable in used for variable in equation.outvars]
            used.update(variable for variable in equation.invars if not isinstance(variable, Literal))


def _equation_flops(equation, rules: _Rules, used: list[bool]) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        products = math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        return 2 * products * (_passes(equation) if rules.passes else 1)
    if name == "conv_general_dilated":
        kernel, kernel_axes = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        taps = math.prod(kernel[axis] for axis in kernel_axes[1:])  # input channels per group × window
        products = math.prod(equation.outvars[0].aval.shape) * taps // math.prod(params["lhs_dilation"])
        return 2 * products * (_passes(equation) if rules.passes else 1)
    if name == "cond":
        return max(_flops(branch, rules, used) for branch in _branches(params, rules.platform))
    results = None if name in ("scan", "while") else used  # a loop's results may be needed in its next iteration
    iterations = params["length"] if name == "scan" and rules.loops else 1
    repeats = params["mesh"].size if name == "shard_map" else iterations
    inner = [value for value in params.values() if isinstance(value, Traced)]
    return repeats * sum(_flops(part, rules, results) for part in inner)


def _passes(equation) -> int:
    """bfloat16 passes of a product. The operand with the higher precision decides."""
    if all(operand.aval.dtype == jnp.bfloat16 for operand in equation.invars):
        return 1
    precision = equation.params["precision"]
    each = precision if isinstance(precision, tuple) else (precision,)
    return max(_PASSES[Precision.DEFAULT if one is None else one] for one in each)


def _branches(params: dict, platform: str) -> tuple:
    """The branches that may run: of `jax.lax.platform_dependent` this platform's, or else the default (name None)."""
    branches, names = params["branches"], params.get("branches_platforms")
    if names is None:
        return branches
    own = [branch for branch, of in zip(branches, names, strict=True) if of is not None and platform in of]
    return tuple(own) or tuple(branch for branch, of in zip(branches, names, strict=True) if of is None)
