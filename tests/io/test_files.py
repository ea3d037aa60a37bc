"""Files are written completely or not at all."""

import os
import stat
from pathlib import Path

import pytest

from cdc_jax.io.files import IMAGE_FORMATS, image_format, new_folder, write_atomically


def test_new_and_replaced(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, b"one")
    write_atomically(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a"]


def test_relative_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically("a", b"one")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions_follow_the_umask_and_the_replaced_file(tmp_path):
    path = tmp_path / "a"
    before = os.umask(0o027)
    try:
        write_atomically(path, b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write_atomically(path, b"two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_links_stay_links(tmp_path):
    (tmp_path / "link").symlink_to("target")
    for data in (b"one", b"two"):
        write_atomically(tmp_path / "link", data)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "target").read_bytes() == data


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_changes_nothing(tmp_path, monkeypatch, error):
    path = tmp_path / "a"
    path.write_bytes(b"precious")

    def fail(*names):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)) as caught:
        write_atomically(path, b"two")
    assert path.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["a"]
    if isinstance(error, OSError):
        assert caught.value.filename == str(path)


@pytest.mark.parametrize("name", ["missing/a", "file/a", "folder"])
def test_paths_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / name, b"data")
    assert caught.value.filename == str(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_formats_by_suffix():
    assert image_format("a/b.c.JPG") == image_format("x.jpeg") == "jpeg"
    assert image_format("png") is image_format("a.gif") is image_format("a") is None
    assert {image_format(f"x{s}") for suffixes in IMAGE_FORMATS.values() for s in suffixes} == set(IMAGE_FORMATS)


def test_a_new_folder_replaces_the_old_one(tmp_path):
    path = tmp_path / "some" / "folder"
    for content in ("one", "two"):
        with new_folder(path) as folder:
            (folder / content).touch()
        assert os.listdir(path) == [content]
    assert os.listdir(path.parent) == ["folder"]


@pytest.mark.parametrize("existing", [True, False])
def test_a_folder_that_fails_changes_nothing(tmp_path, existing, monkeypatch):
    path = tmp_path / "folder"
    if existing:
        path.mkdir()
        (path / "precious").touch()
    with pytest.raises(ZeroDivisionError), new_folder(path):
        raise ZeroDivisionError
    rename, calls = Path.rename, []

    def fail_once_the_old_one_is_aside(self, target):
        calls.append(target)
        if len(calls) == 1 + existing:
            raise OSError("disk full")
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(Path, "rename", fail_once_the_old_one_is_aside)
        with new_folder(path) as folder:
            (folder / "new").touch()
    left = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*"))
    assert left == (["folder", "folder/precious"] if existing else [])
