"""The files that a command reads and writes: folders, default output names, `-`, and outputs that must be kept."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from cdc_jax.errors import CdcError, reason_of
from cdc_jax.io.files import write_atomically
from cdc_jax.io.image_folders import find_files

STANDARD = "-"


class UsageError(CdcError):
    """The command line asks for something impossible. Nothing has been read or written."""

    exit_code = 2


@dataclass(frozen=True)
class Task:
    """One conversion, from `source` to `target`. Both are paths or `-`."""

    source: str
    target: str


@dataclass
class Plan:
    """Everything that a command line asks for.

    Attributes:
      tasks: the conversions, in the order of the command line; within a folder, in the order of the names.
      problems: one line for each input without a task, because it is missing or an empty folder.
      skipped: files in folders that have another suffix, without hidden files.
      makes_folders: whether the output is a folder, which is created if it is missing.
    """

    tasks: list[Task] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    makes_folders: bool = False


def plan_tasks(inputs: Sequence[str], output: str | None, *, suffixes: Collection[str], new_suffix: str) -> Plan:
    """Pairs inputs with outputs, without reading or writing files.

    The output of a single file is `output`, or by default its own path with `new_suffix`. Outputs of several files or
    of a folder go into the folder `output`, with the subfolders of the input, or by default next to their inputs. A
    single `-` is standard input.

    Args:
      inputs: files and folders.
      output: the value of `-o`, or None.
      suffixes: in lower case: those of the files to find in folders (ignoring case), which `new_suffix` replaces.
      new_suffix: the suffix of outputs, such as `.cdc`.

    Raises:
      UsageError: two inputs have the same output; an output is also an input; or `output` is a file where a folder is
        needed, or a folder where a file is needed.
    """
    if len(inputs) == 1 and not os.path.isdir(inputs[0]):
        plan = _plan_one(inputs[0], output, suffixes, new_suffix)
    else:
        plan = _plan_several(inputs, output, suffixes, new_suffix)
    _refuse_collisions(plan.tasks)
    return plan


def _plan_one(source: str, output: str | None, suffixes: Collection[str], new_suffix: str) -> Plan:
    if output is not None and (os.path.isdir(output) or output.endswith(("/", os.sep))):
        raise UsageError(f"{output}: This is a folder; for a single input, -o names a file.")
    if source != STANDARD and not os.path.exists(source):
        return Plan(problems=[f"{source}: No such file or folder."])
    default = STANDARD if source == STANDARD else _with_suffix(source, suffixes, new_suffix)
    return Plan([Task(source, default if output is None else output)])


def _plan_several(inputs: Sequence[str], output: str | None, suffixes: Collection[str], new_suffix: str) -> Plan:
    if STANDARD in inputs or output == STANDARD:
        raise UsageError("'-' is one file: it cannot be combined with several files or with a folder.")
    if output is not None and os.path.exists(output) and not os.path.isdir(output):
        raise UsageError(f"{output}: This is a file; for several inputs or a folder, -o names a folder.")
    plan = Plan(makes_folders=output is not None)

    def add(source: str, relative: str) -> None:
        target = source if output is None else os.path.join(output, relative)
        plan.tasks.append(Task(source, _with_suffix(target, suffixes, new_suffix)))

    def unreadable(error: OSError) -> None:
        plan.problems.append(f"{error.filename}: {reason_of(error)}.")

    for path in inputs:
        if os.path.isdir(path):
            names, skipped = find_files(path, suffixes, unreadable)
            for name in names:
                add(os.path.join(path, name), name)
            plan.skipped += [os.path.join(path, name) for name in skipped]
            if not names:
                plan.problems.append(f"{path}: There is no {_kind(suffixes)} in this folder.")
        elif os.path.exists(path):
            add(path, os.path.basename(path))
        else:
            plan.problems.append(f"{path}: No such file or folder.")
    return plan


def _kind(suffixes: Collection[str]) -> str:
    return f"{next(iter(suffixes))} file" if len(suffixes) == 1 else "image"


def _with_suffix(path: str, suffixes: Collection[str], new_suffix: str) -> str:
    """Replaces a known suffix: `photo.png` → `photo.cdc`. Appends to others: `scan.2024` → `scan.2024.cdc`."""
    root, suffix = os.path.splitext(path)
    return (root if suffix.lower() in suffixes else path) + new_suffix


def _refuse_collisions(tasks: Sequence[Task]) -> None:
    sources = {_identity(task.source): task.source for task in tasks if task.source != STANDARD}
    targets: dict[object, str] = {}
    for task in tasks:
        if task.target == STANDARD or _is_device(task.target):
            continue
        identity = _identity(task.target)
        if identity in sources:
            raise UsageError(f"{task.target}: This output is also an input ({sources[identity]}).")
        if identity in targets:
            raise UsageError(f"{targets[identity]} and {task.source} would both be written to {task.target}.")
        targets[identity] = task.source


def _identity(path: str) -> object:
    """A value that is equal for two names of one file, even before the file exists or if case does not matter."""
    try:
        status = os.stat(path)
        return status.st_dev, status.st_ino
    except OSError:
        name = os.path.normcase(os.path.realpath(path))
        return name.casefold() if sys.platform == "darwin" else name


def _is_device(path: str) -> bool:
    """Whether `path` exists but is neither a file nor a folder, such as `/dev/null` or a pipe."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_target(target: str, *, force: bool, makes_folders: bool) -> None:
    """Checks that an output may be written, before its contents are computed.

    Raises:
      CdcError: the file exists already (unless `force`), or is a folder; or its folder is missing (unless
        `makes_folders`) or cannot be written to.
    """
    if target == STANDARD or _is_device(target):
        return
    if os.path.isdir(target):
        raise CdcError(f"{target}: This is a folder, so the output cannot be written there.")
    if os.path.exists(target) and not force:
        raise CdcError(f"{target}: The file exists and was kept; --force replaces it.")
    folder = os.path.dirname(os.path.realpath(target))
    if not makes_folders and not os.path.isdir(folder):
        raise CdcError(f"{target}: There is no folder {folder} to write to.")
    if os.path.isdir(folder) and not os.access(folder, os.W_OK):
        raise CdcError(f"{target}: The folder {folder} cannot be written to.")


def read_source(source: str, *, magic: bytes = b"") -> bytes:
    """Reads a file, or standard input for `-`. If it does not begin with `magic`, reads no more than those bytes.

    Raises:
      CdcError: the source is a folder, or standard input is closed.
      OSError: the source cannot be read.
    """
    if os.path.isdir(source):
        raise CdcError(f"{source}: This is a folder, not a file.")
    with contextlib.nullcontext(standard_stream("stdin")) if source == STANDARD else open(source, "rb") as file:
        head = file.read(len(magic))
        return head + file.read() if head == magic else head


def write_target(target: str, data: bytes, *, makes_folders: bool) -> None:
    """Writes a file, completely or not at all, or standard output for `-`.

    Raises:
      CdcError: standard output is closed.
      OSError: the target cannot be written.
    """
    if target == STANDARD:
        stream = standard_stream("stdout")
        with standard_output_errors():
            stream.write(data)
            stream.flush()
        return
    if makes_folders:
        os.makedirs(os.path.dirname(target), exist_ok=True)
    write_atomically(target, data)


def standard_stream(name: str) -> BinaryIO:
    """The binary stream of `sys.stdin` or `sys.stdout`, by its name in `sys`."""
    stream = getattr(sys, name)
    if stream is None:  # closed by the caller (cdc … >&-)
        raise CdcError(f"Standard {'input' if name == 'stdin' else 'output'} is closed.")
    return stream.buffer


@contextlib.contextmanager
def standard_output_errors() -> Iterator[None]:
    """Adds the name "standard output" to an OSError, and keeps Python from raising it again when it exits."""
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        with contextlib.suppress(OSError, ValueError):  # in tests, standard output has no file descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        raise
