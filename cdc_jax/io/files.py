"""Names of image formats, and writing files and folders completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from cdc_jax.errors import CdcError, reason_of

# Format names of the command line, each with its filename suffixes, the most common one first.
IMAGE_FORMATS: dict[str, tuple[str, ...]] = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "bmp": (".bmp",),
}
IMAGE_SUFFIXES = tuple(suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes)
LOSSY_FORMATS = ("jpeg", "webp")  # those of `IMAGE_FORMATS` that take a quality
CDC_SUFFIX = ".cdc"

MAX_PIXELS = 2**28  # default limit on height × width of images to read, which bounds the memory that hostile files take


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in an object store, such as gs://bucket/run."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def reraise_as(sentence: str, *paths: str | os.PathLike[str], kind: type[CdcError] = CdcError) -> Iterator[None]:
    """Converts read and write errors in a `with` block to `kind`. The message is the sentence, a colon, and the reason.

    Args:
      sentence: the beginning of the message, without a period.
      paths: what the block reads and writes. If one is in an object store, every exception is converted, because its
        client may raise types other than OSError.
      kind: the error to raise.
    """
    try:
        yield
    except CdcError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) or any(map(is_remote, paths))):
            raise
        raise kind(f"{sentence}: {reason_of(error)}.") from error


def copy_tree(source: Path, target: Path) -> None:
    """Copies a folder's files into another folder. Either may be in an object store (`etils.epath.Path`).

    Raises:
      CdcError: a file cannot be read or written.
    """
    with reraise_as(f"Cannot copy {source} to {target}", source, target):
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if path.is_dir():
                copy_tree(path, target / path.name)
            else:
                (target / path.name).write_bytes(path.read_bytes())


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[Path]:
    """Creates a temporary folder for a `with` block, and renames it to `path` at the end of the block.

    If the block fails, `path` is unchanged. Otherwise its former contents are deleted after the new folder has been
    renamed. Missing parents are created.

    Args:
      path: the folder.
      replace: whether to replace an existing `path`. Otherwise it must be missing or an empty folder until the end of
        the block; if several processes create it at the same time, exactly one succeeds.

    Raises:
      OSError: the folder cannot be created or renamed.
      FileExistsError: `path` exists and must not be replaced.
    """
    target = Path(os.path.realpath(path))
    temporary, old = (target.with_name(f".{target.name}-{secrets.token_hex(6)}.{kind}") for kind in ("partial", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if not replace:
            _rename_to_free(temporary, target)
            return
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        if target.exists():  # another process may have put it there
            shutil.rmtree(old, ignore_errors=True)


def _rename_to_free(folder: Path, target: Path) -> None:
    """Renames a folder in one step. Raises FileExistsError if the target exists."""
    with contextlib.suppress(OSError):
        target.rmdir()  # succeeds if it is empty; only POSIX renames onto an empty folder
    try:
        folder.rename(target)  # fails on every system if the target has contents
    except OSError as error:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


def image_format(path: str | os.PathLike[str]) -> str | None:
    """The format of a filename's suffix in any case, as a key of `IMAGE_FORMATS`, or None."""
    suffix = Path(path).suffix.lower()
    return next((name for name, suffixes in IMAGE_FORMATS.items() if suffix in suffixes), None)


def write_atomically(path: str | os.PathLike[str], data: bytes, *, replace: bool = True) -> None:
    """Writes `data` to a temporary file next to `path`, then renames it: readers see the old file or the new one.

    Symbolic links stay links, and a replaced file keeps its permissions. Devices and pipes (`/dev/null`) are written to
    directly, since a rename would replace them with a regular file.

    Args:
      path: the file.
      data: its contents.
      replace: whether to replace an existing file. Otherwise, if several writers write at the same time, exactly one
        succeeds.

    Raises:
      OSError: no such folder, no permission, no space left, …; `path` is then unchanged and no temporary file is left.
      FileExistsError: the file exists and must not be replaced.
    """
    path = os.fspath(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        with open(path, "wb") as file:
            file.write(data)
        return
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".cdc-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:  # not `tempfile`, whose files only the owner can read
            file.write(data)
        if not replace:
            _link_new(temporary, target)
            return
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException as error:  # including KeyboardInterrupt: leave no file behind
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename, error.filename2 = path, None  # the user does not know the temporary name
        raise


def _link_new(temporary: str, target: str) -> None:
    """Renames a file in one step. Raises FileExistsError if the target exists."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: reserve the name with an empty file, then replace it
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, target)
    else:
        os.unlink(temporary)
