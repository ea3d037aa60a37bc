"""The models of a command line."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cdc_jax.errors import ModelMismatchError
from cdc_jax.runtime.free_memory import require_libraries

if TYPE_CHECKING:
    from cdc_jax.codec.codec import Codec

SHIPPED = "the model of cdc_jax"


class Models:
    """The bundles of a command line, each loaded when it is first needed.

    Attributes:
      paths: the paths of the bundles; `SHIPPED` alone if none was given.
    """

    def __init__(self, args: argparse.Namespace, load_codec: Callable | None):
        """Takes the bundles and limits of `args`. `load_codec` replaces `cdc_jax.load_codec`, unless None."""
        self.paths = args.model or [SHIPPED]
        self._load_codec = load_codec
        self._options = {"max_pixels": args.max_pixels}
        if getattr(args, "bfloat16", False):
            self._options["compute_type"] = "bfloat16"
        self._codecs = {}
        self._loading = threading.Lock()

    def load(self, path: str) -> Codec:
        """The codec of the bundle at `path`, one of `paths`."""
        with self._loading:
            if path not in self._codecs:
                load_codec = self._load_codec
                if load_codec is None:
                    require_libraries()
                    from cdc_jax.codec.codec import load_codec
                    from cdc_jax.runtime import programs

                    programs.keep()
                folder = None if path == SHIPPED else path
                self._codecs[path] = load_codec(folder, **self._options)
            return self._codecs[path]

    def for_file(self, fingerprint: bytes, name: str) -> Codec:
        """The first codec that has a file's fingerprint.

        Raises:
          ModelMismatchError: no codec has it; the message names the file, its fingerprint and those of the bundles.
        """
        others = []
        for path in self.paths:
            codec = self.load(path)
            if codec.fingerprint == fingerprint:
                return codec
            others.append(f"{path} is {codec.fingerprint.hex()}")
        needed = f"{name}: needs the model {fingerprint.hex()} that it was written with"
        raise ModelMismatchError(f"{needed}, but {', '.join(others)}.")
