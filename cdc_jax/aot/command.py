"""`python -m cdc_jax.main --mode=compile`: compiles for devices that are not attached, and prints statistics."""

from __future__ import annotations

from pathlib import Path

import ml_collections
from absl import flags

from cdc_jax.errors import ConfigError

_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x4", "Compile for these chips: GENERATION:SHAPE.")
_BATCHES = flags.DEFINE_list("batch-per-chip", ["1"], "Compile for these numbers of images per chip.")
_PROGRAMS = flags.DEFINE_list("programs", ["train_step", "decode"], "Compile these programs.")
_CACHE = flags.DEFINE_string("cache", None, "Folder for statistics of programs; without it, the user's cache folder.")


def run(config: ml_collections.ConfigDict | None) -> None:
    """Compiles the programs that the flags name, and prints the statistics of each as soon as it is compiled.

    Args:
      config: the run's settings; None (no --config) is an error.

    Raises:
      ConfigError: a flag is missing or invalid, or there is no such topology.
      CdcError: the compiler is missing or fails.
    """
    if config is None:
        raise ConfigError("--mode=compile needs --config=FILE.")
    batches = [_positive(text) for text in _BATCHES.value]
    from cdc_jax.aot.compile import compile_program, default_cache
    from cdc_jax.aot.programs import PROGRAMS
    from cdc_jax.aot.report import describe, describe_time, extrapolate
    from cdc_jax.aot.topology import AVAILABLE_HBM_GIB, open_topology
    from cdc_jax.training.config_checks import check_config

    unknown = [name for name in _PROGRAMS.value if name not in PROGRAMS]
    if unknown:
        raise ConfigError(f"--programs names {unknown[0]!r}; it must be among {', '.join(PROGRAMS)}.")
    check_config(config)
    topology = open_topology(_TOPOLOGY.value)
    if topology.available_bytes is None:
        known = ", ".join(AVAILABLE_HBM_GIB)
        print(f"Note: the available memory is known for {known} only.")
    cache = Path(_CACHE.value).expanduser() if _CACHE.value else default_cache()
    for program in _PROGRAMS.value:
        compiled = []
        for batch in batches:
            stats, cached = compile_program(config, topology, program, batch, cache)
            compiled.append(stats)
            print(describe(stats, topology, cached), flush=True)
            time = describe_time(stats, config.train.steps if program == "train_step" else None)
            if time:
                print(time, flush=True)
        line = extrapolate(compiled, topology)
        if line:
            print(line, flush=True)


def _positive(text: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise ConfigError(f"--batch-per-chip has {text!r}; it must be whole numbers from 1, for instance 1,4.")
    return int(text)
