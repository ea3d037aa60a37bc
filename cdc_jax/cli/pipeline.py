"""Runs the tasks of a command, so that reading, decoding and writing of different files overlap.

The devices process one batch at a time. One thread feeds them. Other threads read the files of the next window, and
encode decoded images as PNG, JPEG and so on. The caller receives the outcomes as they become ready, and writes the
files. At most `WAITING_BYTES` of decoded images are queued for it. A single task runs in the caller's thread.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cdc_jax.cli import console
from cdc_jax.cli.paths import STANDARD, Plan, Task, UsageError, check_target, write_target
from cdc_jax.errors import BundleError, CdcError

WORKERS = 4
WINDOW = 64  # files that are read together, so that images of the same size share batches
WAITING_BYTES = 64 << 20  # limit on decoded images that are queued for encoding

File, Image = TypeVar("File"), TypeVar("Image")


@dataclass(frozen=True)
class Outcome:
    """The result of a task: the bytes to write, or an error.

    Attributes:
      task: the task.
      data: the bytes to write; empty if there is an error.
      details: a short description of the result for the user.
      error: the exception that ended the task, or None.
      subject: the file that the error is about.
    """

    task: Task
    data: bytes = b""
    details: str = ""
    error: BaseException | None = None
    subject: str = ""


Convert = Callable[[Sequence[Task]], Iterator[Outcome]]


def target_check(args: argparse.Namespace, plan: Plan) -> Callable[[Task], None]:
    """Returns `check_target` with the settings of a plan, as a function of a task."""
    return lambda task: check_target(task.target, force=args.force, makes_folders=plan.makes_folders)


def run_tasks(args: argparse.Namespace, plan: Plan, convert: Convert, *, interruptible: bool) -> int:
    """Converts every file of a plan. A file that fails is reported in one line and does not stop the others.

    Args:
      args: the options `force` and `quiet` (report errors only).
      plan: what to read and write.
      convert: yields the outcomes of the plan's tasks in any order, and may run ahead of the writing.
      interruptible: whether Ctrl-C during a conversion ends the process at once. Otherwise it raises
        KeyboardInterrupt, as usual in Python.

    Returns:
      The exit code, see `console.exit_code_of`.

    Raises:
      UsageError: a file would go to a terminal.
    """
    _refuse_terminal(args, plan)
    for problem in plan.problems:
        console.log(problem)
    failures = [CdcError.exit_code] * len(plan.problems)
    start = time.perf_counter()
    written_bytes = 0
    outcomes = _outcomes(plan, convert, interruptible=interruptible)
    for outcome in console.with_progress(outcomes, len(plan.tasks), args.quiet):
        failure = _write(outcome, plan)
        if failure is not None:
            failures.append(failure)
            continue
        written_bytes += len(outcome.data)
        if not args.quiet and len(plan.tasks) == 1:
            source, target = console.shown(outcome.task.source), console.shown(outcome.task.target, "output")
            console.log(f"{source} -> {target}: {outcome.details}")
    if not args.quiet and len(plan.tasks) > 1:
        total = len(plan.tasks) + len(plan.problems)
        seconds = time.perf_counter() - start
        console.log(f"{total - len(failures)} of {total} files done, {written_bytes} bytes written, {seconds:.1f} s")
    return console.exit_code_of(failures)


def _refuse_terminal(args: argparse.Namespace, plan: Plan) -> None:
    if not args.force and any(task.target == STANDARD for task in plan.tasks):
        if sys.stdout is not None and sys.stdout.isatty():
            raise UsageError("Standard output is a terminal: redirect it, or name a file with -o.")


def _write(outcome: Outcome, plan: Plan) -> int | None:
    """Writes the file of an outcome. If that or the task failed, reports the error and returns its exit code."""
    subject = outcome.subject
    try:
        if outcome.error is not None:
            raise outcome.error
        subject = console.shown(outcome.task.target, "output")
        write_target(outcome.task.target, outcome.data, makes_folders=plan.makes_folders)
    except (BundleError, BrokenPipeError):
        raise  # they concern all files
    except Exception as error:
        line = console.describe(error, subject)
        if line is None:
            raise
        console.log(line)
        return error.exit_code if isinstance(error, CdcError) else CdcError.exit_code
    return None


def one_by_one(check: Callable[[Task], None], convert: Callable[[str], tuple[bytes, str]]) -> Convert:
    """Converts each file separately, several at a time.

    Args:
      check: raises an error if a task's target must not be written.
      convert: maps a source to the target's bytes and a short description of them; called in threads.

    Returns:
      A function from tasks to their outcomes.
    """

    def outcome(task: Task) -> Outcome:
        problem = _problem(check, task)
        if problem is not None:
            return problem
        try:
            return Outcome(task, *convert(task.source))
        except Exception as error:
            return Outcome(task, error=error, subject=console.shown(task.source))

    def outcomes(tasks: Sequence[Task]) -> Iterator[Outcome]:
        return _parallel(outcome, tasks)

    return outcomes


def in_batches(
    check: Callable[[Task], None],
    read: Callable[[str], File],
    decode: Callable[[Sequence[File]], Iterator[tuple[int, Image | Exception]]],
    finish: Callable[[File, Image], tuple[bytes, str]],
    *,
    concurrent: bool = True,
) -> Convert:
    """Converts files in batches, since devices process several at once.

    Args:
      check: raises an error if a task's target must not be written.
      read: reads a source; called in threads while earlier files are decoded.
      decode: yields (index, image or error) for each file in any order; called in one thread. If it raises, it is
        called again with each of the remaining files alone.
      finish: returns the target's bytes and a short description of them; called in threads.
      concurrent: whether to read the next files and finish earlier images during a decode. If False, the steps run one
        after the other, so that at most one decoded image is in memory.

    Returns:
      A function from tasks to their outcomes.
    """

    batches = _Batches(check, read, decode, finish)

    def outcomes(tasks: Sequence[Task]) -> Iterator[Outcome]:
        if not concurrent or len(tasks) < 2:
            return (batches.complete(item) for item in batches.decoded(tasks))
        return _in_threads(batches.complete, _in_background(batches.decoded(tasks)))

    return outcomes


@dataclass(frozen=True)
class _Batches:
    """The steps of `in_batches`, with its arguments."""

    check: Callable[[Task], None]
    read: Callable[[str], File]
    decode: Callable[[Sequence[File]], Iterator[tuple[int, Image | Exception]]]
    finish: Callable[[File, Image], tuple[bytes, str]]

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
        for loaded in _windows(self.load, tasks):
            yield from (outcome for outcome in loaded if isinstance(outcome, Outcome))
            yield from self._images([item for item in loaded if not isinstance(item, Outcome)])

    def _images(self, files: Sequence[tuple[Task, File]]) -> Iterator[tuple[Task, File, Image | Exception]]:
        left = dict(enumerate(files))
        try:
            for index, image in self.decode([file for _, file in files]):
                yield *left.pop(index), image
        except Exception as error:  # such as too little memory for one of the files, but it is unknown which
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
            return Outcome(task, *self.finish(file, image))
        except Exception as error:
            return Outcome(task, error=error, subject=console.shown(task.source))


def _in_background(items: Iterator) -> Iterator:
    from cdc_jax.runtime.prefetch import in_background

    def image_bytes(item) -> int:
        return 0 if isinstance(item, Outcome) else getattr(item[-1], "nbytes", 0)

    return in_background(items, image_bytes, most=WAITING_BYTES)


def _windows(function: Callable, items: Sequence) -> Iterator[list]:
    """Yields the function's results for `WINDOW` items at a time, and computes the next window in the background."""
    windows = [items[start : start + WINDOW] for start in range(0, len(items), WINDOW)]
    if len(windows) < 2:
        yield from (list(_parallel(function, window)) for window in windows)
        return
    from cdc_jax.runtime.prefetch import prefetch_one

    for _, results in prefetch_one(lambda window: list(_parallel(function, window)), windows):
        yield results


def _problem(check: Callable[[Task], None], task: Task) -> Outcome | None:
    try:
        check(task)
    except Exception as error:
        return Outcome(task, error=error, subject=console.shown(task.target, "output"))
    return None


def _parallel(function: Callable, items: Sequence) -> Iterator:
    yield from map(function, items) if len(items) < 2 else _in_threads(function, items)


def _in_threads(function: Callable, items: Iterable) -> Iterator:
    from cdc_jax.runtime.prefetch import in_threads

    for _, result in in_threads(function, items, workers=WORKERS):
        yield result


def _outcomes(plan: Plan, convert: Convert, *, interruptible: bool) -> Iterator[Outcome]:
    with contextlib.closing(convert(plan.tasks)) as outcomes:
        while True:
            with _ctrl_c_ends_process() if interruptible else contextlib.nullcontext():
                outcome = next(outcomes, None)
            if outcome is None:
                return
            yield outcome


@contextlib.contextmanager
def _ctrl_c_ends_process() -> Iterator[None]:
    """Restores the default action of SIGINT: XLA ignores Python's signal flag, so Ctrl-C would wait for the decode.

    No file of the user is written inside or in another thread, so none can be left half-written.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
