"""Shared by the benchmarks: their arguments, timing of interleaved programs, and the reference convolution (limit)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdc_jax.aot.flops import product_flops

LIMIT = "3×3 convolution 128→128 at 128×128"
LIMIT_FLOPS = 2 * 9 * 128**4


def sized_parser(doc: str, *, width: int, side: int, repeats: int) -> argparse.ArgumentParser:
    """A parser with --width, --side and --repeats and these defaults, for a benchmark with this docstring."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0], allow_abbrev=False)
    for name, default in (("--width", width), ("--side", side), ("--repeats", repeats)):
        parser.add_argument(name, type=int, default=default)
    return parser


class Timed(NamedTuple):
    """Wall-clock seconds, and the seconds of all cores together; of one repetition, or the fastest ones."""

    seconds: float
    core_seconds: float


def time_interleaved(programs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timed]:
    """Runs all programs once untimed, then interleaved, so that other load on the machine affects all equally."""
    samples = sample_interleaved(programs, repeats)
    return {name: Timed(*map(min, zip(*times, strict=True))) for name, times in samples.items()}


def sample_interleaved(programs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[Timed]]:
    """The times of every repetition; as `time_interleaved`."""
    for program in programs.values():
        jax.block_until_ready(program())
    samples = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            start, start_core = time.perf_counter(), time.process_time()
            jax.block_until_ready(program())
            samples[name].append(Timed(time.perf_counter() - start, time.process_time() - start_core))
    return samples


def limit_program() -> tuple[Callable[[], jax.Array], float]:
    """The reference convolution, and its FLOPs."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(1, 128, 128, 128)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(3, 3, 128, 128)), jnp.float32)
    layout = ("NHWC", "HWIO", "NHWC")
    run = jax.jit(lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=layout))
    return (lambda: run(x, kernel)), LIMIT_FLOPS


def limit_rate(repeats: int = 3) -> float:
    """FLOP/s of the reference convolution, measured now on this machine."""
    program, flops = limit_program()
    return flops / time_interleaved({LIMIT: program}, repeats)[LIMIT].seconds


def executed_flops(function: Callable, *args) -> float:
    """FLOPs of the convolutions and matrix products that a call executes on this machine."""
    return product_flops(jax.make_jaxpr(function)(*args), jax.default_backend())


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
