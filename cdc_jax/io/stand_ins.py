"""Files that stand in for the wanted one, which a download or clone leaves if large files are stored elsewhere."""

from __future__ import annotations

import os

_GIT_LFS = b"version https://git-lfs"
_HTML = (b"<!doctype html", b"<html")
_NOT_FOUND = (b"Entry not found", b"Repository not found", b"Invalid username or password")  # answers of a hub


def stand_in(path: str | os.PathLike[str]) -> str | None:
    """The end of a message that says what a file is instead of binary data, and what to do; None if it is no stand-in.

    Raises:
      OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(100)
    if start.startswith(_GIT_LFS):
        return "it is a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned"
    if start.lstrip().lower().startswith(_HTML):
        return "it is an HTML page, not the file itself: download it again, by the link to the raw file"
    if start.startswith(_NOT_FOUND):
        return "it is a hub's answer that there is no such file: check its address, and your login if it is private"
    return None
