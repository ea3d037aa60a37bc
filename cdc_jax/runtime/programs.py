"""Compiled programs on disk, so that later processes neither trace nor compile.

JAX's compilation cache saves only the compiler's work. Tracing takes longer than loading the program, and needs Flax.
We keep the executable that JAX compiled, so results are bit-identical.

Only the command `cdc` keeps programs, and only for a single device. Otherwise, `call` is a plain call, and JAX's own
cache applies. The two exclude each other: XLA cannot serialize a program that came from JAX's cache.

The entries are machine code, as in JAX's cache, and pickles: whoever can write to the folder can run code in the
processes that read it.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable

import jax
from jax.experimental import serialize_executable

from cdc_jax.errors import is_out_of_memory
from cdc_jax.runtime import compilation_cache, kept_results

_loaded: dict[tuple, jax.stages.Compiled] = {}
_locks: dict[tuple, threading.Lock] = {}
_changing = threading.Lock()


def keep() -> None:
    """Keeps the programs of this process, unless the user has turned this off or chosen another cache."""
    if jax.device_count() > 1:
        compilation_cache.enable()
    else:
        kept_results.enable(compilation_cache.usable_folder())


def call(function: Callable, static: tuple, arguments: tuple, **keywords):
    """Returns `function(*static, *arguments, **keywords)`, computed with a kept program if there is one.

    Args:
      function: a function returned by `jax.jit`.
      static: its first arguments, which are static and fully described by their `repr`.
      arguments: the other arguments: arrays or pytrees of arrays.
      keywords: further static arguments, by name.
    """
    if not kept_results.is_enabled() or jax.config.jax_compilation_cache_dir:
        return function(*static, *arguments, **keywords)
    leaves, structure = jax.tree.flatten((arguments, {}))
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    identity = (function, static, tuple(sorted(keywords.items())), structure, shapes)
    with _changing:
        lock = _locks.setdefault(identity, threading.Lock())
    with lock:  # so that no two threads compile the same program
        program = _loaded.get(identity)
        if program is None:
            name = function.__name__.strip("_")
            key = f"{function.__module__}.{name} {static!r} {keywords!r} {structure} {shapes}"
            program, result = _try(name, key, structure, arguments)
            if program is None:
                program = function.lower(*static, *arguments, **keywords).compile()
                _write(name, key, program)
            _loaded[identity] = program
            if result is not None:
                return result
    return program(*arguments)


def _try(name: str, key: str, structure, arguments: tuple) -> tuple[jax.stages.Compiled, object] | tuple[None, None]:
    """A kept program and its first result; (None, None) if none runs: it is then compiled again."""
    data = kept_results.read(name, key)
    if data is None:
        return None, None
    try:
        executable, outputs = pickle.loads(data)
        program = serialize_executable.deserialize_and_load(executable, structure, outputs)
        return program, jax.block_until_ready(program(*arguments))
    except Exception as error:  # of many types
        if is_out_of_memory(error):
            raise
        return None, None


def _write(name: str, key: str, program: jax.stages.Compiled) -> None:
    try:
        executable, _, outputs = serialize_executable.serialize(program)
        data = pickle.dumps((executable, outputs))
    except Exception:  # a program that cannot be serialized, such as one with constants, is compiled every time
        return
    kept_results.write(name, key, data)
