"""Finding the files below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_jax.io.image_folders import FolderFiles, find_files, find_images, image_suffixes


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_are_sorted_and_the_others_listed(tmp_path):
    make(tmp_path, "b.png", "a.JPG", "a/z.png", "notes.txt", "a/x.svg", ".hidden.png", ".git/x.png")
    assert find_images(tmp_path) == FolderFiles(["a.JPG", "a/z.png", "b.png"], ["a/x.svg", "notes.txt"])
    assert find_files(tmp_path, [".svg"]).names == ["a/x.svg"]


def test_linked_folders_are_visited_once(tmp_path):
    make(tmp_path / "images", "a.png")
    make(tmp_path / "elsewhere", "b.png")
    try:
        (tmp_path / "images" / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "images")
    except OSError:
        pytest.skip("this system makes no symbolic links")
    assert find_images(tmp_path / "images") == FolderFiles(["a.png", "link/b.png"], [])


def test_formats_that_start_programs_are_not_images():
    assert {".png", ".gif", ".tga", ".ppm"} < image_suffixes() and not {".eps", ".ps", ".wmf"} & image_suffixes()
