"""A learned image codec: conditional diffusion on top of a hyperprior compressor, in JAX.

`load_codec` opens a bundle; the `Codec` it returns turns images into bytes and back. What needs JAX is imported on
first use, so that `import cdc_jax` and `cdc info` stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_jax.errors import (
    BitstreamError,
    BundleError,
    CdcError,
    CheckpointError,
    ConfigError,
    ImageError,
    ModelMismatchError,
)
from cdc_jax.version import __version__

if TYPE_CHECKING:
    from cdc_jax.codec.codec import Codec, load_codec

__all__ = [
    "BitstreamError",
    "BundleError",
    "CdcError",
    "CheckpointError",
    "Codec",
    "ConfigError",
    "ImageError",
    "ModelMismatchError",
    "__version__",
    "load_codec",
]


def __getattr__(name: str):
    if name in ("Codec", "load_codec"):
        from cdc_jax.codec import codec

        return getattr(codec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
