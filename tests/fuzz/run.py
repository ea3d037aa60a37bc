"""Fuzzes one target, guided by the lines that inputs reach.

  python -m tests.fuzz.run TARGET FOLDER [-max_total_time=60 and other options of libFuzzer]

FOLDER keeps the inputs that reached something new; it starts with the target's seeds and kept inputs. A finding ends
the run with a traceback, and is written into FOLDER as `crash-…`, `timeout-…` or `oom-…`. Needs
`pip install '.[fuzz]'`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

OPTIONS = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=8192", "-print_final_stats=1"]


def main() -> None:
    name, folder, *options = sys.argv[1:]
    # The readers, and what they are made of; NumPy and JAX would only cost time.
    with atheris.instrument_imports(include=["cdc_jax", "zipfile", "pickletools", "PIL"]):
        from tests.fuzz.corpus import read
        from tests.fuzz.targets import TARGETS

        target = TARGETS[name]
        assert all(map(target.run, target.seeds()))  # which imports what is imported late
    corpus = Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate([*target.seeds(), *read(name)]):
        (corpus / f"seed-{number}").write_bytes(seed)
    largest = max(len(seed) for seed in target.seeds())
    sizes = [f"-max_len={2 * largest}"] if largest > 4096 else []
    arguments = [sys.argv[0], *OPTIONS, *sizes, f"-artifact_prefix={corpus}/", *options, str(corpus)]
    atheris.Setup(arguments, lambda data: target.run(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
