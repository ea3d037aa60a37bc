"""Which files are images: the formats that are read, and the images below a folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection
from typing import NamedTuple

# What Pillow opens and we do not: EPS starts Ghostscript, the others are drawings, films, or have no pixels of theirs.
_NOT_IMAGES = {"BUFR", "EPS", "FLI", "GRIB", "HDF5", "MIC", "MPEG", "WMF"}


class FolderFiles(NamedTuple):
    """The files below a folder, as paths from it with forward slashes, sorted.

    Attributes:
      names: those that were searched for.
      skipped: the others.
    """

    names: list[str]
    skipped: list[str]


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Names of all formats that the installed Pillow reads images from."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.OPEN if name not in _NOT_IMAGES)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Filename suffixes of these formats, in lower case."""
    from PIL import Image

    formats = set(image_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def find_images(folder: str | os.PathLike[str], onerror: Callable[[OSError], None] | None = None) -> FolderFiles:
    """`find_files` for images of any format that is read."""
    return find_files(folder, image_suffixes(), onerror)


def find_files(
    folder: str | os.PathLike[str], suffixes: Collection[str], onerror: Callable[[OSError], None] | None = None
) -> FolderFiles:
    """The files below a folder with one of the suffixes (lower case; any case matches), and the others.

    Hidden files and folders are left out of both: some systems keep notes beside images as `._name.jpg`. Links to
    folders are followed, each folder being visited once.

    Args:
      folder: the folder.
      suffixes: what to search for.
      onerror: called with the error of every folder that cannot be read.
    """
    names, skipped, visited = [], [], set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=onerror):
        real = os.path.realpath(parent)
        folders[:] = [] if real in visited else sorted(name for name in folders if not name.startswith("."))
        for name in () if real in visited else files:
            if not name.startswith("."):
                matches = os.path.splitext(name)[1].lower() in suffixes
                path = os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")
                (names if matches else skipped).append(path)
        visited.add(real)
    return FolderFiles(sorted(names), sorted(skipped))
