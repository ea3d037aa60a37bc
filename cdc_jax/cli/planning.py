"""Which files a command line reads and writes: inputs and folders, the rules of `-o`, name clashes.

Nothing is read or written here. A name clash fails only the files involved; an error in the command line as a whole is
a `UsageError`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from cdc_jax.cli.paths import STANDARD, UsageError, is_device
from cdc_jax.errors import reason_of
from cdc_jax.io.image_folders import find_files


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
      problems: one line for each input without a task, because it is missing, is an empty folder, or has a name clash.
      skipped: files in folders that have another suffix, except hidden files.
      existing: inputs without a task, because their output exists already and `--skip-existing` was given.
      folder: the output folder, which is created if it is missing; None if the output is a file or next to its input.
    """

    tasks: list[Task] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    existing: list[str] = field(default_factory=list)
    folder: str | None = None


@dataclass(frozen=True)
class Naming:
    """How outputs are named.

    Attributes:
      suffixes: the suffixes, in lower case, of the files to find in folders (ignoring case). `new_suffix` replaces
        them.
      new_suffix: the suffix of outputs, such as `.cdc`.
      keep_suffix: append the new suffix to the old one instead.
    """

    suffixes: Collection[str]
    new_suffix: str
    keep_suffix: bool = False

    def target(self, path: str) -> str:
        """`photo.png` → `photo.cdc`, but `scan.2024` → `scan.2024.cdc` and `photo.png.cdc` → `photo.png`."""
        root, suffix = os.path.splitext(path)
        if self.keep_suffix or suffix.lower() not in self.suffixes:
            return path + self.new_suffix
        return root if root.lower().endswith(self.new_suffix) else root + self.new_suffix


def plan_tasks(inputs: Sequence[str], output: str | None, naming: Naming, *, skip_existing: bool = False) -> Plan:
    """Pairs inputs with outputs.

    A single file goes to the file `output`. Several files or a folder go into the folder `output`, with the subfolders
    of the input; so does a single file if `output` is a folder or ends in a slash. Without `output`, files go next to
    their inputs. A single `-` is standard input. A file that is given twice counts once.

    Args:
      inputs: files and folders.
      output: the value of `-o`, or None.
      naming: how outputs are named.
      skip_existing: leave out the files whose output exists.

    Raises:
      UsageError: `-` among several inputs; the only output is also the input; or `output` is a file where a folder is
        needed.
    """
    named_folder = output is not None and output != STANDARD and _is_folder(output)
    if len(inputs) == 1 and not os.path.isdir(inputs[0]) and not named_folder:
        plan = _plan_one(inputs[0], output, naming)
    else:
        plan = _plan_several(inputs, output, naming)
        _set_clashes_aside(plan, naming)
    if skip_existing:
        plan.existing = [task.source for task in plan.tasks if _exists(task.target)]
        plan.tasks = [task for task in plan.tasks if not _exists(task.target)]
    return plan


def list_files(inputs: Sequence[str], suffix: str) -> tuple[list[str], list[str]]:
    """The inputs with folders replaced by their files with this suffix, and one line for each folder without any."""
    files: list[str] = []
    problems: list[str] = []
    for path in inputs:
        if not os.path.isdir(path):
            files.append(path)
            continue
        names, _ = find_files(path, (suffix,), lambda error: problems.append(_unreadable(error)))
        files += [os.path.join(path, name) for name in names]
        if not names:
            problems.append(f"{path}: There is no {suffix} file in this folder.")
    return files, problems


def _plan_one(source: str, output: str | None, naming: Naming) -> Plan:
    if source != STANDARD and not os.path.exists(source):
        return Plan(problems=[f"{source}: No such file or folder."])
    default = STANDARD if source == STANDARD else naming.target(source)
    target = default if output is None else output
    if source != STANDARD and target != STANDARD and not is_device(target) and _identity(target) == _identity(source):
        raise UsageError(f"{target}: This output is also an input ({source}).")
    return Plan([Task(source, target)])


def _plan_several(inputs: Sequence[str], output: str | None, naming: Naming) -> Plan:
    if STANDARD in inputs and len(inputs) == 1:
        raise UsageError(f"{output}: This is a folder; standard input has no name, so -o must name a file.")
    if STANDARD in inputs or output == STANDARD:
        raise UsageError("'-' is one file: it cannot be combined with several files or with a folder.")
    if output is not None and os.path.exists(output) and not os.path.isdir(output):
        raise UsageError(f"{output}: This is a file; for several inputs or a folder, -o names a folder.")
    plan, seen = Plan(folder=output), set()

    def add(source: str, relative: str) -> None:
        place = os.path.join(os.path.realpath(os.path.dirname(source)), os.path.basename(source))
        if place not in seen:
            seen.add(place)
            target = source if output is None else os.path.join(output, relative)
            plan.tasks.append(Task(source, naming.target(target)))

    for path in inputs:
        if os.path.isdir(path):
            names, skipped = find_files(path, naming.suffixes, lambda error: plan.problems.append(_unreadable(error)))
            for name in names:
                add(os.path.join(path, name), name)
            plan.skipped += [os.path.join(path, name) for name in skipped]
            if not names:
                kind = f"{next(iter(naming.suffixes))} file" if len(naming.suffixes) == 1 else "image"
                plan.problems.append(f"{path}: There is no {kind} in this folder.")
        elif os.path.exists(path):
            add(path, os.path.basename(path))
        else:
            plan.problems.append(f"{path}: No such file or folder.")
    return plan


def _set_clashes_aside(plan: Plan, naming: Naming) -> None:
    """Turns tasks whose output is an input, or also the output of another task, into problems."""
    sources = {_identity(task.source): task.source for task in plan.tasks}
    by_target: dict[object, list[Task]] = {}
    for task in plan.tasks:
        by_target.setdefault(_identity(task.target), []).append(task)
    plan.tasks = []
    for target, tasks in by_target.items():
        if target in sources:
            plan.problems += [f"{t.source}: Its output {t.target} is also an input ({sources[target]})." for t in tasks]
        elif len(tasks) > 1:
            names = {os.path.basename(task.source) for task in tasks}
            hint = "; --keep-suffix keeps them apart" if len(names) == len(tasks) and len(naming.suffixes) > 1 else ""
            all_of_them = " and ".join(task.source for task in tasks)
            plan.problems += [f"{t.source}: {all_of_them} would all be written to {t.target}{hint}." for t in tasks]
        else:
            plan.tasks += tasks


def _is_folder(output: str) -> bool:
    return os.path.isdir(output) or output.endswith(("/", os.sep))


def _exists(target: str) -> bool:
    return target != STANDARD and not is_device(target) and os.path.exists(target)


def _unreadable(error: OSError) -> str:
    return f"{error.filename}: {reason_of(error)}."


def _identity(path: str) -> object:
    """A value that is equal for two names of one file, even if the file does not exist yet or case does not matter."""
    try:
        status = os.stat(path)
        return status.st_dev, status.st_ino
    except OSError:
        name = os.path.normcase(os.path.realpath(path))
        return name.casefold() if sys.platform == "darwin" else name
