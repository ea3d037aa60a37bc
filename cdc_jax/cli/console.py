"""Messages, the progress bar and the exit code of a command."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cdc_jax.cli.paths import STANDARD, standard_output_errors
from cdc_jax.errors import CdcError, is_out_of_memory, reason_of

# Held while standard error is redirected (`silent_libraries`), and while a message is written to it.
_STANDARD_ERROR = threading.RLock()

Item = TypeVar("Item")


def log(text: str) -> None:
    """Writes one line to standard error, above the progress bar if there is one."""
    if sys.stderr is None:  # closed by the caller (cdc … 2>&-); `print` would use standard output instead
        return
    line = "cdc: " + " ".join(text.splitlines())
    tqdm = sys.modules.get("tqdm")
    with _STANDARD_ERROR, contextlib.suppress(OSError, ValueError):  # a lost message is no reason to stop
        if tqdm is not None:
            tqdm.tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)


def print_line(text: str) -> None:
    """Writes one line to standard output. Characters missing from its encoding are escaped.

    Raises:
      OSError: standard output cannot be written to.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = " ".join(text.splitlines()).encode(encoding, "backslashreplace").decode(encoding)
    with standard_output_errors():
        print(line, flush=True)


def shown(name: str, stream: str = "input") -> str:
    """The name of a source or target in messages: `standard STREAM` for `-`."""
    return f"standard {stream}" if name == STANDARD else name


def describe(error: BaseException, name: str = "") -> str | None:
    """The message for an error that a user can cause, or None for an error that only a bug of ours can cause.

    Args:
      error: the error.
      name: the subject of the error, such as a path. It precedes the message unless the message contains it.
    """
    if isinstance(error, CdcError):
        text = str(error)
    elif is_out_of_memory(error):
        text = "There is not enough memory for this: raise the limit (ulimit -v), or free some."
    elif isinstance(error, OSError):
        text = f"{reason_of(error)}."
        name = name or str(error.filename or "")
    else:
        return None
    return text if name.lower() in text.lower() else f"{name}: {text}"


def shows_progress(quiet: bool) -> bool:
    """Whether to show a progress bar: only on a terminal, since every refresh would be a new line in a file or pipe."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty()


def with_progress(items: Iterator[Item], total: int, quiet: bool) -> Iterator[Item]:
    """Yields the items, with a progress bar if standard error is a terminal and `total` is 2 or more."""
    if total < 2 or not shows_progress(quiet):
        yield from items
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="file", file=sys.stderr) as bar:
        for item in items:
            yield item
            with _STANDARD_ERROR:
                bar.update()


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """Discards what image libraries such as libtiff write to standard error, so that only our own line appears."""
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
    """The exit code of a command: 0 without failures, that of all failures if they share one, otherwise 1."""
    codes = set(failures)
    if not codes:
        return 0
    return codes.pop() if len(codes) == 1 else CdcError.exit_code
