"""Runs the tasks of a command so that reading, decoding and writing different files overlap.

The devices process one batch at a time. One thread feeds them. Other threads read the files of the next window, and
encode decoded images as PNG, JPEG and so on. The caller receives the outcomes as they become ready, and writes the
files. At most `WAITING_BYTES` of decoded images are queued for it. A single task runs in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from cdc_jax.cli import console
from cdc_jax.cli.planning import Task

WORKERS = 4  # threads, by default
WINDOW = 64  # files that are read together, so that images of the same size share batches
WAITING_BYTES = 64 << 20  # limit on decoded images that are queued for encoding

File, Image = TypeVar("File"), TypeVar("Image")


class Result(NamedTuple):
    """The result of a conversion.

    Attributes:
      data: the bytes to write.
      details: a short description of them for the user.
      pixels: the number of pixels of the image.
      compressed_bytes: the size of its `.cdc` file.
    """

    data: bytes
    details: str
    pixels: int
    compressed_bytes: int


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task: a result or an error.

    Attributes:
      task: the task.
      result: what to write, or None if there is an error.
      error: the exception that ended the task, or None.
      subject: the file that the error is about.
    """

    task: Task
    result: Result | None = None
    error: BaseException | None = None
    subject: str = ""


Convert = Callable[[Sequence[Task]], Iterator[Outcome]]


def one_by_one(check: Callable[[Task], None], convert: Callable[[str], Result], *, workers: int = WORKERS) -> Convert:
    """Converts each file separately, several at a time.

    Args:
      check: raises an error if a task's target must not be written.
      convert: maps a source to its result; called in threads.
      workers: the number of threads.

    Returns:
      A function from tasks to their outcomes.
    """

    def outcome(task: Task) -> Outcome:
        problem = _problem(check, task)
        if problem is not None:
            return problem
        try:
            return Outcome(task, convert(task.source))
        except Exception as error:
            return Outcome(task, error=error, subject=console.shown(task.source))

    def outcomes(tasks: Sequence[Task]) -> Iterator[Outcome]:
        return _parallel(outcome, tasks, workers)

    return outcomes


def in_batches(
    check: Callable[[Task], None],
    read: Callable[[str], File],
    decode: Callable[[Sequence[File]], Iterator[tuple[int, Image | Exception]]],
    finish: Callable[[File, Image], Result],
    *,
    concurrent: bool = True,
    workers: int = WORKERS,
) -> Convert:
    """Converts files in batches, since devices process several at once.

    Args:
      check: raises an error if a task's target must not be written.
      read: reads a source; called in threads while earlier files are decoded.
      decode: yields (index, image or error) for each file in any order; called in one thread. If it raises an
        exception, it is called again with each of the remaining files alone.
      finish: makes the result of a file and its image; called in threads.
      concurrent: whether to read the next files and finish earlier images while an image is decoded. If False, the
        steps run one after another, so that at most one decoded image is in memory.
      workers: the number of threads that read, and also of those that finish.

    Returns:
      A function from tasks to their outcomes.
    """

    batches = _Batches(check, read, decode, finish, workers)

    def outcomes(tasks: Sequence[Task]) -> Iterator[Outcome]:
        if not concurrent or len(tasks) < 2:
            return (batches.complete(item) for item in batches.decoded(tasks))
        return _in_threads(batches.complete, _in_background(batches.decoded(tasks)), workers)

    return outcomes


@dataclass(frozen=True)
class _Batches:
    """The steps of `in_batches`, with its arguments."""

    check: Callable[[Task], None]
    read: Callable[[str], File]
    decode: Callable[[Sequence[File]], Iterator[tuple[int, Image | Exception]]]
    finish: Callable[[File, Image], Result]
    workers: int

    def load(self, task: Task) -> Outcome | tuple[Task, File]:
        """Reads a task's file. Returns the task with the file, or the outcome if that failed."""
        problem = _problem(self.check, task)
        if problem is not None:
            return problem
        try:
            return task, self.read(task.source)
        except Exception as error:
            return Outcome(task, error=error, subject=console.shown(task.source))

    def decoded(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, File, Image | Exception] | Outcome]:
        """Yields the outcomes of files that cannot be read, and (task, file, image or error) for the others."""
        for loaded in _windows(self.load, tasks, self.workers):
            yield from (outcome for outcome in loaded if isinstance(outcome, Outcome))
            yield from self._images([item for item in loaded if not isinstance(item, Outcome)])

    def _images(self, files: Sequence[tuple[Task, File]]) -> Iterator[tuple[Task, File, Image | Exception]]:
        left = dict(enumerate(files))
        try:
            for index, image in self.decode([file for _, file in files]):
                yield *left.pop(index), image
        except Exception as error:  # such as too little memory for one of the files; it is unknown which one
            if len(files) == 1:
                yield *files[0], error
                return
            for item in left.values():
                yield from self._images([item])

    def complete(self, item: tuple[Task, File, Image | Exception] | Outcome) -> Outcome:
        """Turns an item of `decoded` into an outcome."""
        if isinstance(item, Outcome):
            return item
        task, file, image = item
        try:
            if isinstance(image, Exception):
                raise image
            return Outcome(task, self.finish(file, image))
        except Exception as error:
            return Outcome(task, error=error, subject=console.shown(task.source))


def _in_background(items: Iterator) -> Iterator:
    from cdc_jax.runtime.prefetch import in_background

    def image_bytes(item) -> int:
        return 0 if isinstance(item, Outcome) else getattr(item[-1], "nbytes", 0)

    return in_background(items, image_bytes, most=WAITING_BYTES)


def _windows(function: Callable, items: Sequence, workers: int) -> Iterator[list]:
    """Yields the function's results for `WINDOW` items at a time, and computes the next window in the background."""
    windows = [items[start : start + WINDOW] for start in range(0, len(items), WINDOW)]
    if len(windows) < 2:
        yield from (list(_parallel(function, window, workers)) for window in windows)
        return
    from cdc_jax.runtime.prefetch import prefetch_one

    for _, results in prefetch_one(lambda window: list(_parallel(function, window, workers)), windows):
        yield results


def _problem(check: Callable[[Task], None], task: Task) -> Outcome | None:
    try:
        check(task)
    except Exception as error:
        return Outcome(task, error=error, subject=console.shown(task.target, "output"))
    return None


def _parallel(function: Callable, items: Sequence, workers: int) -> Iterator:
    yield from map(function, items) if len(items) < 2 or workers == 1 else _in_threads(function, items, workers)


def _in_threads(function: Callable, items: Iterable, workers: int) -> Iterator:
    from cdc_jax.runtime.prefetch import in_threads

    for _, result in in_threads(function, items, workers=workers):
        yield result
