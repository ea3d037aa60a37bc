"""From tasks to outcomes, many at once: reading, entropy coding, the network and picture formats go on together.

Threads do it, around the devices, which take one batch at a time. Files are written by the caller, who takes outcomes
as they come; no more wait for him than a few. A single task is done in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cdc_jax.cli_files import STANDARD, Task

WORKERS = 4
WINDOW = 64  # files that are looked at together to find those of one size

File, Picture = TypeVar("File"), TypeVar("Picture")


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
      task: the task.
      data: the bytes to write, if there is no error.
      details: a few words about them.
      error: what stopped it.
      subject: the file that the error is about.
    """

    task: Task
    data: bytes = b""
    details: str = ""
    error: BaseException | None = None
    subject: str = ""


Convert = Callable[[Sequence[Task]], Iterator[Outcome]]


def shown(name: str, stream: str = "input") -> str:
    """What to call a source or target in a message."""
    return f"standard {stream}" if name == STANDARD else name


def one_by_one(check: Callable[[Task], None], convert: Callable[[str], tuple[bytes, str]]) -> Convert:
    """Each file by itself, some at a time.

    Args:
      check: raises what speaks against a task's target.
      convert: from a source to the target's bytes and a few words about them; called in threads.
    """

    def outcome(task: Task) -> Outcome:
        problem = _problem(check, task)
        if problem is not None:
            return problem
        try:
            return Outcome(task, *convert(task.source))
        except Exception as error:
            return Outcome(task, error=error, subject=shown(task.source))

    def outcomes(tasks: Sequence[Task]) -> Iterator[Outcome]:
        return _parallel(outcome, tasks)

    return outcomes


def in_batches(
    check: Callable[[Task], None],
    read: Callable[[str], File],
    decode: Callable[[Sequence[File]], Iterator[tuple[int, Picture | Exception]]],
    finish: Callable[[File, Picture], tuple[bytes, str]],
) -> Convert:
    """Files that the devices take many of at once.

    Args:
      check: raises what speaks against a task's target.
      read: a source; called in threads, some while the ones before are decoded.
      decode: gives (index, picture or error) of the files, in the order that suits it.
      finish: makes the target's bytes, and a few words about them; called in threads.
    """

    def load(task: Task) -> Outcome | tuple[Task, File]:
        problem = _problem(check, task)
        if problem is not None:
            return problem
        try:
            return task, read(task.source)
        except Exception as error:
            return Outcome(task, error=error, subject=shown(task.source))

    def decoded(tasks: Sequence[Task]) -> Iterator[tuple[Task, File, Picture] | Outcome]:
        for start in range(0, len(tasks), WINDOW):
            files = []
            for loaded in _parallel(load, tasks[start : start + WINDOW]):
                if isinstance(loaded, Outcome):
                    yield loaded
                else:
                    files.append(loaded)
            left = dict(enumerate(files))
            try:
                for index, picture in decode([file for _, file in files]):
                    yield *left.pop(index), picture
            except Exception as error:  # such as too little memory for one of them: which one is not known
                for task, file in left.values():
                    yield task, file, error

    def complete(item: tuple[Task, File, Picture] | Outcome) -> Outcome:
        if isinstance(item, Outcome):
            return item
        task, file, picture = item
        try:
            if isinstance(picture, Exception):
                raise picture
            return Outcome(task, *finish(file, picture))
        except Exception as error:
            return Outcome(task, error=error, subject=shown(task.source))

    def outcomes(tasks: Sequence[Task]) -> Iterator[Outcome]:
        return _parallel(complete, decoded(tasks), total=len(tasks))

    return outcomes


def _problem(check: Callable[[Task], None], task: Task) -> Outcome | None:
    try:
        check(task)
    except Exception as error:
        return Outcome(task, error=error, subject=shown(task.target, "output"))
    return None


def _parallel(function: Callable, items, *, total: int | None = None) -> Iterator:
    if (len(items) if total is None else total) < 2:
        yield from map(function, items)
        return
    from cdc_jax.batching import in_threads

    for _, result in in_threads(function, items, workers=WORKERS):
        yield result
