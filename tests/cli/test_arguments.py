"""Kinds of values on the command line."""

import argparse

import pytest

from cdc_jax.cli.arguments import byte_size


@pytest.mark.parametrize(
    "text, size",
    [
        ("1", 1),
        ("60k", 60 * 1024),
        ("60K", 60 * 1024),
        ("1.5M", 3 * 2**19),
        (".5k", 512),
        ("2G", 2**31),
        ("2GiB", 2**31),
        ("2gib", 2**31),
        ("2GB", 2 * 10**9),
        ("60kB", 60_000),
        ("3t", 3 * 2**40),
        ("500B", 500),
        (" 4M ", 2**22),
    ],
)
def test_byte_sizes(text, size):
    assert byte_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0.4", "-1", "G", "4X", "4 G", "4GiBs", "4ib", "1e3", "nan", "inf", "1_000", "9" * 400]
)
def test_what_is_no_size(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size such as 60k, 800M or 2GiB"):
        byte_size(text)


def test_targets_take_sizes(cdc, photo, tmp_path):
    assert cdc("compress", "photo.png", "--model=every-rate", "--target-bytes=1.9k", "--quiet") == (0, "", [])
    assert 1800 < (tmp_path / "photo.cdc").stat().st_size <= 1.9 * 1024
