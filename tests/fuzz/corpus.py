"""Inputs that fuzzing found, besides the seeds: each reaches lines of a reader that shorter ones do not.

  python -m tests.fuzz.corpus TARGET FOLDER

replaces those of a target by a choice from FOLDER, where a fuzzer has kept its inputs. A file of base64, one input a
line, holds up to 4 KiB of them. Archives of coding models are too large; they have seeds only.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from pathlib import Path

from tests.helpers.processes import ROOT

MAX_BYTES = 4096
_FOLDER = Path(__file__).parent / "corpus"
_READERS = f"{ROOT}/cdc_jax/", "/PIL/"


def read(name: str) -> list[bytes]:
    """The kept inputs of a target."""
    path = _FOLDER / f"{name}.txt"
    return [base64.b64decode(line) for line in path.read_text().split()] if path.exists() else []


def choose(inputs: list[bytes], run: Callable[[bytes], object]) -> list[bytes]:
    """The shortest inputs that reach new lines, up to `MAX_BYTES`."""
    reached, chosen = set(), []
    for data in sorted(set(inputs), key=len):
        lines = _lines(run, data)
        if not lines <= reached and sum(map(len, chosen)) + len(data) <= MAX_BYTES:
            chosen.append(data)
            reached |= lines
    return chosen


def _lines(run: Callable[[bytes], object], data: bytes) -> set[tuple[str, int]]:
    """The lines of our readers and of Pillow that an input reaches."""
    found = set()

    def trace(frame, _event, _argument):
        path = frame.f_code.co_filename
        if not any(part in path for part in _READERS):
            return None
        found.add((path, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        run(data)
    finally:
        sys.settrace(None)
    return found


def main(name: str, folder: str) -> None:
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    target.run(target.seeds()[0])  # imports what is imported late
    inputs = choose([path.read_bytes() for path in Path(folder).iterdir() if path.is_file()], target.run)
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{name}.txt").write_text("".join(f"{base64.b64encode(data).decode()}\n" for data in inputs))
    print(f"{name}: {len(inputs)} inputs of {sum(map(len, inputs))} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
