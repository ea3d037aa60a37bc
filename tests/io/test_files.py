"""Files are written completely or not at all."""

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
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


def without_links(monkeypatch):
    """A file system such as FAT's."""

    def link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("prepare", [lambda _: None, without_links])
def test_a_new_file_is_not_replaced(tmp_path, monkeypatch, prepare):
    prepare(monkeypatch)
    path = tmp_path / "a"
    write_atomically(path, b"one", replace=False)
    with pytest.raises(FileExistsError) as raised:
        write_atomically(path, b"two", replace=False)
    assert raised.value.filename == str(path) and path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a"]
    (tmp_path / "link").symlink_to("b")
    write_atomically(tmp_path / "link", b"three", replace=False)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "b").read_bytes() == b"three"


@pytest.mark.parametrize("prepare", [lambda _: None, without_links])
def test_of_many_writers_one_wins(tmp_path, monkeypatch, prepare):
    prepare(monkeypatch)
    writers = 8

    def write(value: int) -> bool:
        ready.wait()
        try:
            write_atomically(tmp_path / str(number), bytes([value]) * 10_000, replace=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(writers) as pool:
        for number in range(20):
            ready = threading.Barrier(writers)
            won = [value for value, wins in enumerate(pool.map(write, range(writers))) if wins]
            assert len(won) == 1 and (tmp_path / str(number)).read_bytes() == bytes(won) * 10_000
    assert len(os.listdir(tmp_path)) == 20


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


@pytest.mark.parametrize("there", ["nothing", "empty", "folder", "file"])
def test_a_new_folder_need_not_replace(tmp_path, there):
    path = tmp_path / "folder"
    if there in ("empty", "folder"):
        path.mkdir()
    if there == "folder":
        (path / "precious").touch()
    if there == "file":
        path.write_text("precious")
    before = sorted(file.name for file in tmp_path.rglob("*"))
    if there in ("nothing", "empty"):
        with new_folder(path, replace=False) as folder:
            (folder / "new").touch()
        assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["folder"]
    else:
        with pytest.raises(FileExistsError), new_folder(path, replace=False) as folder:
            (folder / "new").touch()
        assert sorted(file.name for file in tmp_path.rglob("*")) == before


def test_of_two_that_make_a_folder_the_first_wins(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(FileExistsError), new_folder(path, replace=False) as slow:
        (slow / "second").touch()
        with new_folder(path, replace=False) as quick:
            (quick / "first").touch()
    assert os.listdir(path) == ["first"] and os.listdir(tmp_path) == ["folder"]
    with new_folder(path) as slow:
        (slow / "second").touch()
        with new_folder(path) as quick:
            (quick / "first").touch()
    assert os.listdir(path) == ["second"] and os.listdir(tmp_path) == ["folder"]
