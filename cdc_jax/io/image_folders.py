"""The image formats that can be read, and finding images in folders."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection
from typing import NamedTuple

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})  # formats that need pillow-heif

# Formats that Pillow opens but we do not: EPS starts Ghostscript; the others are drawings or videos, or have no pixels
# of their own; CDC is ours (`cdc_jax.pillow`).
_NOT_IMAGES = {"BUFR", "CDC", "EPS", "FLI", "GRIB", "HDF5", "MIC", "MPEG", "WMF"}


class FolderFiles(NamedTuple):
    """The files below a folder, as sorted paths relative to it, with forward slashes.

    Attributes:
      names: the files that match.
      skipped: the files that do not.
    """

    names: list[str]
    skipped: list[str]


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names for the formats that can be read with the installed packages."""
    from PIL import Image

    Image.init()
    register_heif()
    return tuple(name for name in Image.OPEN if name not in _NOT_IMAGES)


def register_heif() -> bool:
    """Lets Pillow read HEIC images if pillow-heif is installed. Returns whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Filename suffixes of `image_formats`, in lower case."""
    from PIL import Image

    formats = set(image_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def find_images(folder: str | os.PathLike[str], onerror: Callable[[OSError], None] | None = None) -> FolderFiles:
    """`find_files` for images in any of `image_formats`."""
    return find_files(folder, image_suffixes(), onerror)


def find_files(
    folder: str | os.PathLike[str], suffixes: Collection[str], onerror: Callable[[OSError], None] | None = None
) -> FolderFiles:
    """Finds the files below a folder that have one of the suffixes.

    Ignores hidden files and folders, since some systems store metadata next to images as `._name.jpg`. Follows links to
    folders, and visits each folder once.

    Args:
      folder: the folder.
      suffixes: the suffixes to find, in lower case; files match in any case.
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
