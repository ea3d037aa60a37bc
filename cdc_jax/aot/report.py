"""Formats the statistics of compiled programs: memory, whether it fits, its estimated time, and the largest batch."""

from __future__ import annotations

from collections.abc import Sequence

from cdc_jax.aot.compile import CompileStats
from cdc_jax.aot.roofline import PEAKS, step_time
from cdc_jax.aot.topology import GIB, Topology

_MEMORY = ("arguments", "outputs", "aliased", "temporaries", "code", "needed")


def describe(stats: CompileStats, topology: Topology, cached: bool) -> str:
    """A program's statistics per chip, as a few lines of text.

    Args:
      stats: the statistics.
      topology: the chips that it was compiled for.
      cached: whether the statistics came from the cache.
    """
    source = "from the cache" if cached else f"compiled in {stats.compile_seconds:.0f} s"
    lines = [
        f"{stats.program}, {stats.batch_per_chip} per chip on {stats.topology} "
        f"({stats.chips} chips, batch {stats.batch_per_chip * stats.chips}), {source}; per chip:"
    ]
    if stats.refusal:
        return "\n".join([*lines, f"  DOES NOT FIT: {stats.refusal}"])
    sizes = (
        stats.argument_bytes,
        stats.output_bytes,
        stats.alias_bytes,
        stats.temporary_bytes,
        stats.code_bytes,
        stats.needed_bytes,
    )
    memory = ", ".join(f"{name} {_size(size)}" for name, size in zip(_MEMORY, sizes, strict=True))
    lines.append(f"  HBM          {memory}")
    lines.append(f"               {_fit(stats.needed_bytes, topology)}")
    lines.append(f"  computation  {stats.flops / 1e9:,.1f} GFLOP in products and convolutions, loops in full")
    if stats.compiler_flops:
        lines[-1] += f" (the compiler's own count, a loop's body once: {stats.compiler_flops / 1e9:,.1f})"
    if topology.platform == "tpu":
        lines[-1] += f"; in bfloat16 passes: {stats.pass_flops / 1e9:,.1f}"
    if stats.compiler_bytes:
        lines.append(f"  accessed     {_size(stats.accessed_bytes)} by all operations together")
    if not stats.collectives:
        lines.append("  collectives  none")
    for item in stats.collectives:
        lines.append(f"  collectives  {item.kind} × {item.count}: {item.arrays} arrays, {_size(item.result_bytes)}")
    return "\n".join(lines)


def describe_time(stats: CompileStats, steps: int | None = None) -> str | None:
    """The program's estimated time, images per second and hours, marked as an estimate.

    Args:
      stats: the statistics.
      steps: the number of training steps; None for other programs.

    Returns:
      A few lines of text; None if the program does not fit, or the chip's peaks are unknown.
    """
    peaks = PEAKS.get(stats.topology.partition(":")[0])
    if stats.refusal or peaks is None:
        return None
    time, images = step_time(stats, peaks), stats.batch_per_chip * stats.chips
    parts = f"products {_ms(time.compute)}, memory {_ms(time.memory)}, links {_ms(time.network)}"
    lower, upper = time.overlapped, time.one_after_another
    lines = [
        f"  ESTIMATE     {_ms(lower)} if these overlap, {_ms(upper)} if not: {parts}",
        f"               {images / lower:,.0f} or {images / upper:,.0f} images/s",
    ]
    if steps is not None:
        lines[-1] += f"; {steps:,} steps: {steps * lower / 3600:,.1f} or {steps * upper / 3600:,.1f} hours"
    lines.append("               at the chip's published peaks, which real programs do not reach; not measured")
    return "\n".join(lines)


def extrapolate(compiled: Sequence[CompileStats], topology: Topology) -> str | None:
    """The largest batch per chip that should fit, extrapolated from the two largest batches of one program.

    Memory is nearly linear in the batch size, since only activations grow.

    Args:
      compiled: statistics of one program at several batch sizes.
      topology: the chips that it was compiled for.

    Returns:
      A line of text; None if fewer than two batches are known, or the available memory is unknown.
    """
    known = sorted((item for item in compiled if not item.refusal), key=lambda item: item.batch_per_chip)
    if len({item.batch_per_chip for item in known}) < 2 or topology.available_bytes is None:
        return None
    small, large = known[-2:]
    slope = (large.needed_bytes - small.needed_bytes) / (large.batch_per_chip - small.batch_per_chip)
    if slope <= 0:
        return None
    base = large.needed_bytes - slope * large.batch_per_chip
    largest = int((topology.available_bytes - base) // slope)
    refused = [item.batch_per_chip for item in compiled if item.refusal]
    largest = min([largest, *(batch - 1 for batch in refused)])
    basis = f"from batches {small.batch_per_chip} and {large.batch_per_chip}, not compiled"
    if largest < 1:
        return f"{large.program} on {topology.name}: no batch should fit (extrapolated {basis})"
    needed = base + slope * largest
    return (
        f"{large.program} on {topology.name}: {_size(base)} + {_size(slope)} per image; the largest batch per chip "
        f"that should fit is {largest}, with {_size(needed)} (extrapolated {basis})"
    )


def fits(stats: CompileStats, topology: Topology) -> bool:
    """Whether a chip has enough memory; True if its memory is unknown."""
    if stats.refusal:
        return False
    return topology.available_bytes is None or stats.needed_bytes <= topology.available_bytes


def _fit(needed: int, topology: Topology) -> str:
    if topology.available_bytes is None:
        return "how much memory this chip has is not known here"
    share = f"{_size(needed)} of {_size(topology.available_bytes)} available ({needed / topology.available_bytes:.0%})"
    return f"fits: {share}" if needed <= topology.available_bytes else f"DOES NOT FIT: {share}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms"


def _size(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if abs(size) >= GIB / 100 else f"{size / 2**20:.2f} MiB"
