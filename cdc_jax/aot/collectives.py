"""The collective operations of a compiled program, parsed from its optimized HLO."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

# `%name = SHAPE kind(`, or `kind-start(` for an asynchronous operation, whose `kind-done(` is not counted again.
_OPERATION = re.compile(rf"^\s*(?:ROOT )?%?[\w.-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\(", re.MULTILINE)
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_BITS = re.compile(r"\d+")


class Collective(NamedTuple):
    """All operations of one kind.

    Attributes:
      kind: name of the HLO operation, one of `KINDS`.
      count: number of operations.
      arrays: number of arrays in them.
      result_bytes: total size of their results on one chip.
    """

    kind: str
    count: int
    arrays: int
    result_bytes: int


def collectives(hlo_text: str) -> list[Collective]:
    """The collective operations in the text of `compiled.as_text()`, by kind. Loop bodies count once."""
    counts, arrays, sizes = Counter(), Counter(), Counter()
    for shape, kind, start in _OPERATION.findall(hlo_text):
        results = _array_bytes(shape)
        if start and kind != "all-reduce":
            # The value of an asynchronous operation is (operands, results, context), except for an all-reduce's.
            results = [size for size in results if size > 4]
            results = results[len(results) // 2 :]
        counts[kind] += 1
        arrays[kind] += len(results)
        sizes[kind] += sum(results)
    return [Collective(kind, counts[kind], arrays[kind], sizes[kind]) for kind in KINDS if counts[kind]]


def _array_bytes(shape: str) -> list[int]:
    """Size in bytes of each array in an HLO shape such as `(f32[3,3]{1,0:T(8,128)}, u8[7])`, without padding."""
    sizes = []
    for dtype, dimensions in _ARRAY.findall(re.sub(r"\{[^}]*\}|/\*.*?\*/", "", shape)):
        bits = 8 if dtype == "pred" else int(_BITS.search(dtype).group()) if _BITS.search(dtype) else 0
        count = 1
        for size in filter(None, dimensions.split(",")):
            count *= int(size)
        sizes.append(count * bits // 8)
    return sizes
