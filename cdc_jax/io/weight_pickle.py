"""Reads pickles of weights without unpickling: an interpreter of the few opcodes that such files need.

It imports nothing, and calls only the functions that it is given. Keys of mappings are strings and integers, so no key
is expensive to hash. The number of opcodes is limited; this limit and the file's size bound the memory.
"""

from __future__ import annotations

import collections
import pickletools
from collections.abc import Callable, Mapping
from typing import BinaryIO

MAX_OPCODES = 1_000_000  # a checkpoint of the original implementation, with its moving average, has 50,000

_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# For each opcode that adds to the collection below its values: the collection's type, what the opcode does with others,
# and the number of values; None: all values after the last mark.
_ADDITIONS = {
    "APPEND": (list, "appends to", 1),
    "APPENDS": (list, "appends to", None),
    "SETITEM": (dict, "sets items of", 2),
    "SETITEMS": (dict, "sets items of", None),
}
_LONGEST_NAME = 80  # the number of characters of a name from the file that a message shows
_END = ("STOP", "PROTO", "FRAME")


def ordered_dict(items: list | tuple = ()) -> dict:
    """`collections.OrderedDict` of a list of pairs. Raises ValueError for anything else."""
    if not isinstance(items, list | tuple) or not all(isinstance(pair, list | tuple) for pair in items):
        raise ValueError("it makes a mapping of something other than pairs")
    return collections.OrderedDict((_key(key), value) for key, value in items)


def read_weight_pickle(
    file: BinaryIO, names: Mapping[tuple[str, str], object], persistent_load: Callable[[object], object]
) -> object:
    """The value of the pickle at the file's current position, which moves to the pickle's end.

    Args:
      file: a binary file.
      names: the object for each (module, name) that the pickle may ask for. Functions may be called with any values
        from the pickle, and may raise any exception.
      persistent_load: returns the object of a persistent id.

    Raises:
      ValueError, IndexError, KeyError, TypeError: the pickle is corrupt, or needs more than mappings, lists, tuples,
        numbers, strings and `names`.
    """
    machine = _Machine(names, persistent_load)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count == MAX_OPCODES:
            raise ValueError(f"its pickle has more than {MAX_OPCODES} opcodes, which no file of weights needs")
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The pickle machine: a stack, the positions of marks on it, and a memo."""

    def __init__(self, names: Mapping[tuple[str, str], object], persistent_load: Callable[[object], object]):
        self._names, self._persistent_load = names, persistent_load
        self.stack: list = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def step(self, name: str, argument: object) -> None:
        """Runs one opcode."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in _ADDITIONS:
            self._add(*_ADDITIONS[name])
        elif name not in _END:
            run = getattr(self, f"_run_{name.lower()}", None)
            if run is None:
                raise ValueError(f"its pickle has the opcode {name}, which no file of weights needs")
            run(argument)

    def _pop(self, count: int) -> list:
        if count > len(self.stack) - (self._marks[-1] if self._marks else 0):
            raise ValueError("its pickle takes more values than there are")
        start = len(self.stack) - count
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _pop_mark(self) -> list:
        values = self.stack[self._marks[-1] :]
        del self.stack[self._marks.pop() :]
        return values

    def _run_mark(self, _) -> None:
        self._marks.append(len(self.stack))

    def _run_tuple(self, _) -> None:
        self.stack.append(tuple(self._pop_mark()))

    def _run_empty_list(self, _) -> None:
        self.stack.append([])

    def _run_empty_dict(self, _) -> None:
        self.stack.append({})

    def _add(self, kind: type, what: str, count: int | None) -> None:
        values = self._pop_mark() if count is None else self._pop(count)
        collection = self.stack[-1]
        if not isinstance(collection, kind):
            raise ValueError(f"its pickle {what} something other than a {'list' if kind is list else 'mapping'}")
        if kind is list:
            collection.extend(values)
        else:
            collection.update((_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True))

    def _run_binput(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    _run_long_binput = _run_binput

    def _run_memoize(self, _) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _run_binget(self, index: int) -> None:
        self.stack.append(self._memo[index])

    _run_long_binget = _run_binget

    def _run_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._find(module, name)

    def _run_stack_global(self, _) -> None:
        self._find(*self._pop(2))

    def _find(self, module: object, name: object) -> None:
        if not (isinstance(module, str) and isinstance(name, str) and (module, name) in self._names):
            asked = f"{_shown(module)}.{_shown(name)}"
            raise ValueError(f"it asks for {asked}, which no file of weights needs")
        self.stack.append(self._names[module, name])

    def _run_reduce(self, _) -> None:
        function, arguments = self._pop(2)
        if not callable(function) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls something that is not a function")
        self.stack.append(function(*arguments))

    def _run_build(self, _) -> None:
        self._pop(1)  # attributes of an object; no object here has any

    def _run_binpersid(self, _) -> None:
        self.stack.append(self._persistent_load(*self._pop(1)))


def _key(key: object) -> str | int:
    """Returns the key. Raises ValueError unless it is a string or integer: a nested tuple may take forever to hash."""
    if not isinstance(key, str | int):
        raise ValueError(f"a mapping in it has a key that is not a string, but a {type(key).__name__}")
    return key


def _shown(name: object) -> str:
    text = name if isinstance(name, str) else type(name).__name__
    text = text if text.isprintable() else ascii(text[:_LONGEST_NAME])
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"
