"""Which files a command reads and which it writes: folders, names beside the input, `-`, what must be kept."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from cdc_jax.errors import CdcError, reason_of
from cdc_jax.io.files import write_atomically
from cdc_jax.io.image_folders import find_files

STANDARD = "-"


class UsageError(CdcError):
    """The command line asks for something that cannot be done; nothing has been read or written."""

    exit_code = 2


@dataclass(frozen=True)
class Task:
    """One file to make: from `source` to `target`, both paths or `-`."""

    source: str
    target: str


@dataclass
class Plan:
    """All that one command line asks for.

    Attributes:
      tasks: what to do, in the order of the command line, folders in the order of their names.
      problems: inputs that there is nothing to do for (missing, empty folder), one line each.
      skipped: files in the folders that have another suffix; hidden ones do not count.
      makes_folders: the output is a folder, made where it is missing.
    """

    tasks: list[Task] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    makes_folders: bool = False


def plan_tasks(inputs: Sequence[str], output: str | None, *, suffixes: Collection[str], new_suffix: str) -> Plan:
    """Pairs inputs with outputs, without reading or writing.

    A single file goes to `output`, or beside itself under `new_suffix`; several files or a folder go below the folder
    `output`, folders recursively and with their tree, or each beside itself. A single `-` is standard input.

    Args:
      inputs: files and folders.
      output: `-o`.
      suffixes: what to look for in folders (lower case, any case matches), and what `new_suffix` replaces.
      new_suffix: such as `.cdc`.

    Raises:
      UsageError: two inputs share an output, an output is an input, or `output` is a file where a folder is needed or
        the other way round.
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
    """`photo.png` → `photo.cdc`, but `scan.2024` → `scan.2024.cdc`: only the suffix of a known format is replaced."""
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
    """The same for two names of one file, also before it exists, and where upper and lower case are one."""
    try:
        status = os.stat(path)
        return status.st_dev, status.st_ino
    except OSError:
        name = os.path.normcase(os.path.realpath(path))
        return name.casefold() if sys.platform == "darwin" else name


def _is_device(path: str) -> bool:
    """Whether something is there that is neither file nor folder: `/dev/null`, a pipe."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_target(target: str, *, force: bool, makes_folders: bool) -> None:
    """Finds out before the work whether its result may be written.

    Raises:
      CdcError: a file is there already (unless `force`), or a folder; or the folder to write to is missing.
    """
    if target == STANDARD or _is_device(target):
        return
    if os.path.isdir(target):
        raise CdcError(f"{target}: This is a folder, where the output should go.")
    if os.path.exists(target) and not force:
        raise CdcError(_exists(target))
    folder = os.path.dirname(os.path.realpath(target))
    if not makes_folders and not os.path.isdir(folder):
        raise CdcError(f"{target}: There is no folder {folder} to write to.")
    if os.path.isdir(folder) and not os.access(folder, os.W_OK):
        raise CdcError(f"{target}: The folder {folder} cannot be written to.")


def _exists(target: str) -> str:
    return f"{target}: Exists already and was kept; --force replaces it."


def read_source(source: str, *, magic: bytes = b"") -> bytes:
    """All of a file, or of standard input for `-`; only the first bytes of one that does not begin with `magic`.

    Raises:
      CdcError: it is a folder, or standard input is closed.
      OSError: it cannot be read.
    """
    if os.path.isdir(source):
        raise CdcError(f"{source}: This is a folder, not a file.")
    with contextlib.nullcontext(standard_stream("stdin")) if source == STANDARD else open(source, "rb") as file:
        head = file.read(len(magic))
        return head + file.read() if head == magic else head


def write_target(target: str, data: bytes, *, force: bool, makes_folders: bool) -> None:
    """All of a file, whole or not at all; or to standard output for `-`.

    Raises:
      CdcError: standard output is closed; or a file is there, perhaps since `check_target` (unless `force`).
      OSError: it cannot be written.
    """
    if target == STANDARD:
        stream = standard_stream("stdout")
        with standard_output_errors():
            stream.write(data)
            stream.flush()
        return
    if makes_folders:
        os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        write_atomically(target, data, replace=force)
    except FileExistsError:
        raise CdcError(_exists(target)) from None


def standard_stream(name: str):
    """The binary stream under `sys.stdin` or `sys.stdout`."""
    stream = getattr(sys, name)
    if stream is None:  # closed by the caller: cdc … >&-
        raise CdcError(f"Standard {'input' if name == 'stdin' else 'output'} is closed.")
    return stream.buffer


@contextlib.contextmanager
def standard_output_errors() -> Iterator[None]:
    """Lets an OSError inside name standard output, and be the only one: at its end, Python would fail again."""
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        with contextlib.suppress(OSError, ValueError):  # it is no file of the system's, in tests
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        raise
