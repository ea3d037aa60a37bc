"""The codec: bundles, the encoder's and decoder's networks, and `Codec`, which connects them to the entropy coder.

`Codec` and `load_codec` are imported on first use, so importing this package does not load JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdc_jax.codec.codec import Codec, load_codec

__all__ = ["Codec", "load_codec"]


def __getattr__(name: str):
    if name in __all__:
        from cdc_jax.codec import codec

        return getattr(codec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
