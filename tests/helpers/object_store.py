"""Makes a local folder behave like an unreachable object store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from etils import epath


@contextlib.contextmanager
def unreachable_store(monkeypatch: pytest.MonkeyPatch, method: str) -> Iterator[None]:
    """Treats every path as remote, and makes this method raise what gcsfs raises, which is not an OSError."""

    def fail(*_, **__):
        raise Exception("HTTP 503\ntry again later")

    with monkeypatch.context() as patch:
        patch.setattr("cdc_jax.io.files.is_remote", lambda path: True)
        patch.setattr(type(epath.Path("folder")), method, fail)
        yield
