"""What the benchmarks share: programs timed in turns, and the machine's own convolution as the measure of them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LIMIT = "3×3 convolution 128→128 at 128×128"


class Timed(NamedTuple):
    """Fastest of the repetitions: by the clock, and of all cores together."""

    seconds: float
    core_seconds: float


def time_in_turns(programs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timed]:
    """Runs all programs once unmeasured, then in turns, so that what else the machine does meets all alike."""
    for program in programs.values():
        jax.block_until_ready(program())
    found = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            start, start_core = time.perf_counter(), time.process_time()
            jax.block_until_ready(program())
            found[name].append((time.perf_counter() - start, time.process_time() - start_core))
    return {name: Timed(*map(min, zip(*times, strict=True))) for name, times in found.items()}


def limit_program() -> tuple[Callable[[], jax.Array], float]:
    """The convolution that sets the limit, and its FLOPs."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(1, 128, 128, 128)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(3, 3, 128, 128)), jnp.float32)
    layout = ("NHWC", "HWIO", "NHWC")
    run = jax.jit(lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=layout))
    return (lambda: run(x, kernel)), 2 * 9 * 128**4


def product_flops(function: Callable, *args) -> float:
    """FLOPs of the convolutions and matrix products that a call executes, without those of zeros between samples."""
    return _flops(jax.make_jaxpr(function)(*args).jaxpr)


def _flops(jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            x, kernel = (v.aval.shape for v in equation.invars)
            numbers = params["dimension_numbers"]
            outputs = np.prod(equation.outvars[0].aval.shape)
            taps = np.prod([kernel[d] for d in numbers.rhs_spec[1:]], dtype=float)  # inputs and window
            total += 2 * outputs * taps / np.prod(params["lhs_dilation"])
        elif name == "dot_general":
            x = equation.invars[0].aval.shape
            contracted = params["dimension_numbers"][0][0]
            total += 2 * np.prod(equation.outvars[0].aval.shape, dtype=float) * np.prod([x[d] for d in contracted])
        elif name == "cond":  # `platform_dependent`: the branch of this platform
            names = params.get("branches_platforms")
            branches = params["branches"]
            platform = jax.default_backend()
            chosen = [b for b, p in zip(branches, names or [None] * len(branches), strict=True) if p and platform in p]
            total += _flops((chosen or [branches[-1]])[0].jaxpr)
        elif name == "scan":
            total += params["length"] * _flops(params["jaxpr"].jaxpr)
        else:
            for value in params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    total += _flops(inner)
    return total


def print_table(timed: Mapping[str, Timed], flops: Mapping[str, float], baseline: str) -> None:
    """One row per program: milliseconds, ratio to the baseline, GFLOP, GFLOP/s and its share of the limit's."""
    limit = flops[LIMIT] / timed[LIMIT].seconds
    print(f"{'':42} {'ms':>8} {'ratio':>6} {'core ms':>8} {'ratio':>6} {'GFLOP':>8} {'GFLOP/s':>8} {'of limit':>8}")
    for name, (seconds, core_seconds) in timed.items():
        ratio, core_ratio = seconds / timed[baseline].seconds, core_seconds / timed[baseline].core_seconds
        rate = flops[name] / seconds
        print(
            f"{name:42} {1e3 * seconds:8.1f} {ratio:6.2f} {1e3 * core_seconds:8.1f} {core_ratio:6.2f} "
            f"{flops[name] / 1e9:8.1f} {rate / 1e9:8.1f} {rate / limit:8.0%}"
        )
