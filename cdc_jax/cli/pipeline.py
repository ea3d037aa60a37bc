"""From tasks to outcomes, with reading, decoding and writing of different files at the same time.

The devices take one batch at a time. One thread keeps them busy; others read the files of the next window and encode
decoded images as PNG, JPEG and so on. The caller takes the outcomes as they are ready and writes the files; at most
`WAITING_BYTES` of decoded images wait for it. A single task runs in the caller's thread.
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
WINDOW = 64  # files that are read together, so that those of one size share batches
WAITING_BYTES = 64 << 20  # of decoded images that are not yet files

File, Image = TypeVar("File"), TypeVar("Image")


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


def target_check(args: argparse.Namespace, plan: Plan) -> Callable[[Task], None]:
    """`check_target` for the tasks of a plan."""
    return lambda task: check_target(task.target, force=args.force, makes_folders=plan.makes_folders)


def run_tasks(args: argparse.Namespace, plan: Plan, convert: Convert, *, interruptible: bool) -> int:
    """Converts every file of a plan; a failed one costs one line and does not stop the others.

    Args:
      args: `force`; `quiet`, to report errors only.
      plan: what to read and write.
      convert: makes the outcomes of the plan's tasks, in any order, and perhaps several ahead of what is written.
      interruptible: whether Ctrl-C ends the process at once during a conversion; otherwise it raises
        KeyboardInterrupt, as usual in Python.

    Returns:
      The exit code, see `console.exit_code_of`.

    Raises:
      UsageError: a file would go to a terminal.
    """
    if not args.force and any(task.target == STANDARD for task in plan.tasks):
        if sys.stdout is not None and sys.stdout.isatty():
            raise UsageError("Standard output is a terminal: redirect it, or name a file with -o.")
    failures: list[int] = []
    for problem in plan.problems:
        console.log(problem)
        failures.append(CdcError.exit_code)
    start = time.perf_counter()
    written_bytes = 0
    outcomes = _outcomes(plan, convert, interruptible=interruptible)
    for outcome in console.with_progress(outcomes, len(plan.tasks), args.quiet):
        task, data = outcome.task, outcome.data
        source, target = console.shown(task.source), console.shown(task.target, "output")
        subject = outcome.subject  # of an error message
        try:
            if outcome.error is not None:
                raise outcome.error
            subject = target
            write_target(task.target, data, force=args.force, makes_folders=plan.makes_folders)
        except (BundleError, BrokenPipeError):
            raise  # neither is about this file alone
        except Exception as error:
            line = console.describe(error, subject)
            if line is None:
                raise
            console.log(line)
            failures.append(error.exit_code if isinstance(error, CdcError) else CdcError.exit_code)
            continue
        written_bytes += len(data)
        if not args.quiet and len(plan.tasks) == 1:
            console.log(f"{source} -> {target}: {outcome.details}")
    if not args.quiet and len(plan.tasks) > 1:
        done = len(plan.tasks) + len(plan.problems) - len(failures)
        console.log(
            f"{done} of {done + len(failures)} files done, {written_bytes} bytes written, "
            f"{time.perf_counter() - start:.1f} s"
        )
    return console.exit_code_of(failures)


def one_by_one(check: Callable[[Task], None], convert: Callable[[str], tuple[bytes, str]]) -> Convert:
    """Each file by itself, some at a time.

    Args:
      check: raises an error if a task's target must not be written.
      convert: from a source to the target's bytes and a few words about them; called in threads.
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
    """Files that the devices take many of at once.

    Args:
      check: raises an error if a task's target must not be written.
      read: reads a source; called in threads, while earlier files are decoded.
      decode: yields (index, image or error) of the files in any order; called in one thread. If it raises, it is
        called again with each of the remaining files alone.
      finish: makes the target's bytes and a short description of them; called in threads.
      concurrent: whether the next files are read and earlier images finished during a decode. False: one step after
        the other, so that at most one decoded image is in memory.
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
        """The task's file, or the outcome where it cannot be read."""
        problem = _problem(self.check, task)
        if problem is not None:
            return problem
        try:
            return task, self.read(task.source)
        except Exception as error:
            return Outcome(task, error=error, subject=console.shown(task.source))

    def decoded(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, File, Image | Exception] | Outcome]:
        """Outcomes of the files that cannot be read, images or errors of the others."""
        for loaded in _windows(self.load, tasks):
            yield from (outcome for outcome in loaded if isinstance(outcome, Outcome))
            yield from self._images([item for item in loaded if not isinstance(item, Outcome)])

    def _images(self, files: Sequence[tuple[Task, File]]) -> Iterator[tuple[Task, File, Image | Exception]]:
        left = dict(enumerate(files))
        try:
            for index, image in self.decode([file for _, file in files]):
                yield *left.pop(index), image
        except Exception as error:  # such as too little memory for one of them: which one is not known
            if len(files) == 1:
                yield *files[0], error
                return
            for item in left.values():
                yield from self._images([item])

    def complete(self, item: tuple[Task, File, Image | Exception] | Outcome) -> Outcome:
        """The outcome of what `decoded` yields."""
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
    """The function's results for `WINDOW` items at a time, those of the next window made meanwhile."""
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
    """XLA does not look at Python's signal flag: a decode of minutes could not be interrupted before its end.

    None of the user's files is written inside, nor in another thread, so none can be left half-written.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
