"""Compiles a program for a topology, and caches its statistics so that the same program is compiled only once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from cdc_jax.aot.collectives import Collective, collectives
from cdc_jax.aot.flops import product_flops
from cdc_jax.aot.programs import PROGRAMS
from cdc_jax.aot.topology import Topology
from cdc_jax.errors import CdcError
from cdc_jax.io.files import write_atomically
from cdc_jax.runtime.compilation_cache import cache_root
from cdc_jax.runtime.sharding import make_mesh

CACHE_VERSION = 2  # version of the layout of cached statistics, part of the key


@dataclasses.dataclass(frozen=True)
class CompileStats:
    """The compiler's statistics of one program, per chip.

    Attributes:
      program, topology, chips, batch_per_chip: what was compiled: names, number of chips, images per chip.
      argument_bytes, output_bytes, temporary_bytes, code_bytes: high-bandwidth memory by purpose, including padding.
      alias_bytes: size of the arguments that outputs overwrite (the donated state), which need memory only once.
      flops: FLOPs of matrix products and convolutions, with loops counted in full (`flops.product_flops`).
      pass_flops: the same for the bfloat16 passes of which a float32 product consists on a TPU.
      loop_factor: `flops` divided by the same with the body of each loop counted once.
      compiler_flops: the compiler's own count, with the body of a loop counted once; 0 if it counts nothing.
      compiler_bytes: what all operations read and write, according to the compiler, which counts a loop's body once.
      collectives: the collective operations between chips.
      compile_seconds: time of the compilation.
      refusal: the compiler's message if the program does not fit into the chip's memory; the sizes are then 0.
    """

    program: str
    topology: str
    chips: int
    batch_per_chip: int
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    temporary_bytes: int
    code_bytes: int
    flops: float
    pass_flops: float
    loop_factor: float
    compiler_flops: float
    compiler_bytes: float
    collectives: tuple[Collective, ...]
    compile_seconds: float
    refusal: str = ""

    @property
    def needed_bytes(self) -> int:
        """Memory that the program needs at the same time."""
        return self.argument_bytes + self.output_bytes - self.alias_bytes + self.temporary_bytes + self.code_bytes

    @property
    def accessed_bytes(self) -> float:
        """`compiler_bytes` with loops in full, if loops access as many bytes per FLOP as the rest of the program."""
        return self.compiler_bytes * self.loop_factor


def default_cache() -> Path | None:
    """`cdc_jax/compiled` in the user's cache folder (see `compilation_cache`); None if caching is turned off."""
    root = cache_root()
    return None if root is None else root / "compiled"


def compile_program(
    config: ml_collections.ConfigDict,
    topology: Topology,
    program: str,
    batch_per_chip: int,
    cache: Path | None,
) -> tuple[CompileStats, bool]:
    """Compiles a program, unless its statistics are cached.

    Args:
      config: the run's settings; the batch size is replaced.
      topology: the chips to compile for.
      program: a key of `PROGRAMS`.
      batch_per_chip: number of images per chip.
      cache: folder for statistics, created if it does not exist; None: nothing is cached.

    Returns:
      The statistics, and whether they came from the cache.

    Raises:
      CdcError: the compiler fails for a reason other than memory, or the cache cannot be written.
    """
    mesh = make_mesh(topology.devices)
    function, arguments = PROGRAMS[program](config, mesh, batch_per_chip)
    traced = function.trace(*arguments)
    lowered = traced.lower(lowering_platforms=(topology.platform,))
    versions = (CACHE_VERSION, jax.__version__, topology.compiler)
    text = "\n".join([lowered.as_text(), topology.name, repr(versions)])
    path = cache and cache / f"{program}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    counts = _counts(traced, topology.platform, mesh.size)
    stats = path and _read(path, counts)
    if stats is not None:
        return stats, True
    facts = {"program": program, "topology": topology.name, "chips": mesh.size, "batch_per_chip": batch_per_chip}
    stats = _compile(lowered, topology.compiler_options, {**facts, **counts})
    if path is not None:
        _write(path, stats)
    return stats, False


def _counts(traced: jax.stages.Traced, platform: str, chips: int) -> dict[str, float]:
    """The attributes that the traced program determines."""
    flops = product_flops(traced.jaxpr, platform)
    once = product_flops(traced.jaxpr, platform, loops=False)
    passes = product_flops(traced.jaxpr, platform, passes=True)
    return {"flops": flops / chips, "pass_flops": passes / chips, "loop_factor": flops / once if once else 1.0}


def _compile(lowered: jax.stages.Lowered, options: Mapping[str, int] | None, facts: dict[str, Any]) -> CompileStats:
    """Compiles a lowered program; `facts` are the attributes that are already known. Raises CdcError if that fails."""
    started, refusal, compiled, hlo_text = time.perf_counter(), "", None, ""
    try:
        compiled = lowered.compile(compiler_options=options)
        hlo_text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        refusal = " ".join(str(error).split()).removesuffix(".")
        if "RESOURCE_EXHAUSTED" not in refusal:
            program, topology = facts["program"], facts["topology"]
            raise CdcError(f"The compiler fails on {program} for {topology}: {refusal}.") from error
    memory = compiled.memory_analysis() if compiled else None
    cost = (compiled.cost_analysis() or {}) if compiled else {}
    return CompileStats(
        argument_bytes=memory.argument_size_in_bytes if memory else 0,
        output_bytes=memory.output_size_in_bytes if memory else 0,
        alias_bytes=memory.alias_size_in_bytes if memory else 0,
        temporary_bytes=memory.temp_size_in_bytes if memory else 0,
        code_bytes=memory.generated_code_size_in_bytes if memory else 0,
        compiler_flops=cost.get("flops", 0.0),
        compiler_bytes=cost.get("bytes accessed", 0.0),
        collectives=tuple(collectives(hlo_text)),
        compile_seconds=round(time.perf_counter() - started, 1),
        refusal=refusal,
        **facts,
    )


def _write(path: Path, stats: CompileStats) -> None:
    cache = path.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(dataclasses.asdict(stats), indent=1).encode())
    except OSError as error:
        raise CdcError(f"Cannot write into the cache {cache}: {error.strerror}; name another with --cache.") from error


def _read(path: Path, counts: dict[str, float]) -> CompileStats | None:
    """Cached statistics, with `counts` replaced, since the traced program determines these.

    None if the file is missing or corrupt, or has another layout.
    """
    try:
        values = json.loads(path.read_text())
        stored_collectives = tuple(Collective(*collective) for collective in values.pop("collectives"))
        return CompileStats(**{**values, **counts}, collectives=stored_collectives)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
