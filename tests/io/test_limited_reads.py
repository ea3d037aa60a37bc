"""Only regular files are read, and of them no more than was allowed."""

import os

import pytest

from cdc_jax.io.limited_reads import read_limited, regular_size

POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")


def test_a_file_and_a_link_to_it(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        assert regular_size(tmp_path / name) == 5
        assert read_limited(tmp_path / name, 5) == b"12345"


def test_a_larger_file(tmp_path):
    (tmp_path / "file").write_bytes(b"123456")
    with pytest.raises(OSError, match="more than the 5 bytes"):
        read_limited(tmp_path / "file", 5)


@POSIX
def test_a_file_that_claims_to_be_empty():
    """The kernel's files have no size, but contents."""
    assert regular_size("/proc/self/status") == 0
    with pytest.raises(OSError, match="more than the 10 bytes"):
        read_limited("/proc/self/status", 10)


@POSIX
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file(kind, tmp_path):
    path = {"pipe": tmp_path / "pipe", "device": "/dev/zero", "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        read_limited(path, 1 << 20)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_limited(tmp_path / "missing", 5)
