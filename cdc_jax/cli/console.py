"""Runs a command's files: progress, messages, and what a failure means for the others."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator

from cdc_jax.cli.paths import Plan, standard_output_errors, write_target
from cdc_jax.cli.pipeline import Convert, Outcome, shown
from cdc_jax.errors import BundleError, CdcError

# Held while standard error is turned away from the user (`silent_libraries`), and while something is told there.
_STANDARD_ERROR = threading.RLock()


def say(text: str) -> None:
    """One line on standard error, above the progress bar where there is one."""
    if sys.stderr is None:  # closed by the caller: cdc … 2>&-; print would take standard output instead
        return
    line = "cdc: " + " ".join(text.splitlines())
    tqdm = sys.modules.get("tqdm")
    with _STANDARD_ERROR, contextlib.suppress(OSError, ValueError):  # nobody listens: that is no reason to stop
        if tqdm is not None:
            tqdm.tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)


def put(text: str) -> None:
    """One line on standard output, whatever characters it has.

    Raises:
      OSError: it cannot be written.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = " ".join(text.splitlines()).encode(encoding, "backslashreplace").decode(encoding)
    with standard_output_errors():
        print(line, flush=True)


def describe(error: BaseException, name: str = "") -> str | None:
    """What to tell the user about an error that a user can cause; None for one that only a bug of ours can."""
    if isinstance(error, CdcError):
        text = str(error)
    elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # the latter is XLA's
        text = "there is not enough memory for this"
    elif isinstance(error, OSError):
        text = error.strerror or str(error)
        name = name or str(error.filename or "")
    else:
        return None
    return text if not name or name in text else f"{name}: {text}"


def run_tasks(plan: Plan, convert: Convert, *, quiet: bool, interruptible: bool) -> int:
    """Converts every file of a plan; a failed one costs one line and does not stop the others.

    Args:
      plan: what to read and write.
      convert: makes the outcomes of the plan's tasks, in any order, and perhaps several ahead of what is written.
      quiet: tell nothing but errors.
      interruptible: let Ctrl-C end the process at once while converting; else it is an exception, as usual in Python.

    Returns:
      The exit code, see `exit_code_of`.
    """
    failures: list[int] = []
    for problem in plan.problems:
        say(problem)
        failures.append(CdcError.exit_code)
    start = time.perf_counter()
    written_bytes = 0
    for outcome in _with_progress(_outcomes(plan, convert, interruptible), len(plan.tasks), quiet):
        task, data = outcome.task, outcome.data
        source, target = shown(task.source), shown(task.target, "output")
        subject = outcome.subject  # of an error message
        try:
            if outcome.error is not None:
                raise outcome.error
            subject = target
            write_target(task.target, data, makes_folders=plan.makes_folders)
        except (BundleError, BrokenPipeError):
            raise  # neither is about this file alone
        except Exception as error:
            line = describe(error, subject)
            if line is None:
                raise
            say(line)
            failures.append(error.exit_code if isinstance(error, CdcError) else CdcError.exit_code)
            continue
        written_bytes += len(data)
        if not quiet and len(plan.tasks) == 1:
            say(f"{source} -> {target}: {outcome.details}")
    if not quiet and len(plan.tasks) > 1:
        done = len(plan.tasks) + len(plan.problems) - len(failures)
        say(
            f"{done} of {done + len(failures)} files done, {written_bytes} bytes written, "
            f"{time.perf_counter() - start:.1f} s"
        )
    return exit_code_of(failures)


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """Keeps what picture libraries write to standard error by themselves (libtiff, past Python) out of our one line."""
    import logging

    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if sys.stderr is None:
        yield
        return
    with _STANDARD_ERROR, open(os.devnull, "wb") as null:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def exit_code_of(failures: Iterable[int]) -> int:
    """0 without failures, the code that all share (3: model mismatches), else 1."""
    codes = set(failures)
    if not codes:
        return 0
    return codes.pop() if len(codes) == 1 else CdcError.exit_code


def _outcomes(plan: Plan, convert: Convert, interruptible: bool) -> Iterator[Outcome]:
    with contextlib.closing(convert(plan.tasks)) as outcomes:
        while True:
            with _ctrl_c_ends_process() if interruptible else contextlib.nullcontext():
                outcome = next(outcomes, None)
            if outcome is None:
                return
            yield outcome


def _with_progress(outcomes: Iterator[Outcome], total: int, quiet: bool) -> Iterator[Outcome]:
    """The outcomes, with a bar on standard error if there are several."""
    if quiet or total < 2:
        yield from outcomes
        return
    from tqdm import tqdm

    # In a log file every refresh is a line of its own.
    seconds = 0.1 if sys.stderr is not None and sys.stderr.isatty() else 10.0
    with tqdm(total=total, unit="file", file=sys.stderr, mininterval=seconds) as bar:
        for outcome in outcomes:
            yield outcome
            with _STANDARD_ERROR:
                bar.update()


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
