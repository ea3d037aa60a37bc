"""Runs the tasks of a command: writes the pipeline's results, and reports each file and the totals."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from cdc_jax.cli import console
from cdc_jax.cli.paths import STANDARD, UsageError, check_folder, check_target, write_target
from cdc_jax.cli.pipeline import Convert, Outcome, Result
from cdc_jax.cli.planning import Plan, Task
from cdc_jax.errors import BundleError, CdcError


def check_plan(args: argparse.Namespace, plan: Plan) -> None:
    """Checks the outputs of a plan before any work, except for checks of single files.

    Raises:
      UsageError: a file would go to a terminal.
      CdcError: nothing can be written to the output folder.
    """
    if plan.folder is not None and plan.tasks:
        check_folder(plan.folder)
    if not args.force and any(task.target == STANDARD for task in plan.tasks):
        if sys.stdout is not None and sys.stdout.isatty():
            raise UsageError("Standard output is a terminal: redirect it, or name a file with -o.")


def target_check(args: argparse.Namespace, plan: Plan) -> Callable[[Task], None]:
    """Returns `check_target` with the settings of a plan, as a function of a task."""
    return lambda task: check_target(task.target, force=args.force, makes_folders=plan.folder is not None)


def run_tasks(args: argparse.Namespace, plan: Plan, convert: Convert, *, interruptible: bool) -> int:
    """Converts every file of a plan. A file that fails is reported in one line and does not stop the others.

    Args:
      args: the options `force` and `quiet` (report errors only).
      plan: what to read and write.
      convert: yields the outcomes of the plan's tasks in any order, and may run ahead of the writing.
      interruptible: whether Ctrl-C during a conversion ends the process at once. Otherwise, it raises
        KeyboardInterrupt, as usual in Python.

    Returns:
      The exit code; see `console.exit_code_of`.

    """
    for problem in plan.problems:
        console.log(problem)
    failures = [CdcError.exit_code] * len(plan.problems)
    totals = _Totals()
    outcomes = _outcomes(plan, convert, interruptible=interruptible)
    for outcome in console.with_progress(outcomes, len(plan.tasks), args.quiet):
        failure = _write(outcome, plan, force=args.force)
        if failure is not None:
            failures.append(failure)
            continue
        totals.add(outcome.result)
        if not args.quiet:
            source, target = console.shown(outcome.task.source), console.shown(outcome.task.target, "output")
            console.log(f"{source} -> {target}: {outcome.result.details}")
    total, existing = len(plan.tasks) + len(plan.problems), len(plan.existing)
    if not args.quiet and total + existing > 1:
        console.log(totals.line(total, existing))
    elif not args.quiet and existing:
        console.log(f"{plan.existing[0]}: skipped, since its output exists.")
    return console.exit_code_of(failures)


class _Totals:
    """Counts what a command has done since it began."""

    def __init__(self):
        self._start = time.perf_counter()
        self._files = self._written_bytes = self._compressed_bytes = self._pixels = 0

    def add(self, result: Result) -> None:
        self._files += 1
        self._written_bytes += len(result.data)
        self._compressed_bytes += result.compressed_bytes
        self._pixels += result.pixels

    def line(self, total: int, existing: int) -> str:
        """The last line of a command: files, bytes, bits per pixel of the compressed files, speed."""
        parts = [f"{self._files} of {total} files done"]
        if existing:
            parts.append(f"{existing} skipped, since their output exists")
        if self._files:
            seconds = time.perf_counter() - self._start
            parts.append(f"{self._written_bytes} bytes written, {8 * self._compressed_bytes / self._pixels:.4f} bpp")
            parts.append(f"{self._files / seconds:.2f} images/s, {seconds:.1f} s")
        return ", ".join(parts)


def _write(outcome: Outcome, plan: Plan, *, force: bool) -> int | None:
    """Writes the file of an outcome. If this or the task failed, reports the error and returns its exit code."""
    subject = outcome.subject
    try:
        if outcome.error is not None:
            raise outcome.error
        subject = console.shown(outcome.task.target, "output")
        write_target(outcome.task.target, outcome.result.data, force=force, makes_folders=plan.folder is not None)
    except (BundleError, BrokenPipeError):
        raise  # these concern all files
    except Exception as error:
        line = console.describe(error, subject)
        if line is None:
            raise
        console.log(line)
        return error.exit_code if isinstance(error, CdcError) else CdcError.exit_code
    return None


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

    No user file is written inside this context or in another thread, so none can be left half-written.
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
