"""A learned image codec: a hyperprior compressor with a conditional diffusion decoder, in JAX.

`load_codec` opens a model and returns a `Codec`, which compresses and decompresses images. `docs/api.md` lists all
public names. Except for the exceptions, they are imported on first use, so `import cdc_jax` loads neither JAX nor
NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cdc_jax.errors import (
    BitstreamError,
    BundleError,
    CdcError,
    CheckpointError,
    ConfigError,
    ImageError,
    Interrupted,
    ModelMismatchError,
    OutOfMemoryError,
)
from cdc_jax.version import __version__

if TYPE_CHECKING:
    from cdc_jax.codec.codec import Codec, load_codec
    from cdc_jax.codec.import_torch import import_torch
    from cdc_jax.codec.verification import verify
    from cdc_jax.codec.warm_up import warm_up
    from cdc_jax.evaluation.evaluate import Settings as EvaluationSettings
    from cdc_jax.evaluation.evaluate import evaluate
    from cdc_jax.io.header import Header, read_header
    from cdc_jax.io.images import read_image, write_image
    from cdc_jax.io.metadata import Metadata, read_metadata
    from cdc_jax.models.config import ModelConfig
    from cdc_jax.runtime.compilation_cache import enable as enable_compilation_cache
    from cdc_jax.training.config import default_config
    from cdc_jax.training.export import export_workdir as export_bundle
    from cdc_jax.training.loop import train

__all__ = [
    "BitstreamError",
    "BundleError",
    "CdcError",
    "CheckpointError",
    "Codec",
    "ConfigError",
    "EvaluationSettings",
    "Header",
    "ImageError",
    "Interrupted",
    "Metadata",
    "ModelConfig",
    "ModelMismatchError",
    "OutOfMemoryError",
    "__version__",
    "default_config",
    "enable_compilation_cache",
    "evaluate",
    "export_bundle",
    "import_torch",
    "load_codec",
    "read_header",
    "read_image",
    "read_metadata",
    "train",
    "verify",
    "warm_up",
    "write_image",
]

_IMPORTED_ON_USE = {  # public name → (module, its name there)
    "Codec": ("codec.codec", "Codec"),
    "EvaluationSettings": ("evaluation.evaluate", "Settings"),
    "Header": ("io.header", "Header"),
    "Metadata": ("io.metadata", "Metadata"),
    "ModelConfig": ("models.config", "ModelConfig"),
    "default_config": ("training.config", "default_config"),
    "enable_compilation_cache": ("runtime.compilation_cache", "enable"),
    "evaluate": ("evaluation.evaluate", "evaluate"),
    "export_bundle": ("training.export", "export_workdir"),
    "import_torch": ("codec.import_torch", "import_torch"),
    "load_codec": ("codec.codec", "load_codec"),
    "read_header": ("io.header", "read_header"),
    "read_image": ("io.images", "read_image"),
    "read_metadata": ("io.metadata", "read_metadata"),
    "train": ("training.loop", "train"),
    "verify": ("codec.verification", "verify"),
    "warm_up": ("codec.warm_up", "warm_up"),
    "write_image": ("io.images", "write_image"),
}


_EXTRAS = {"train": "train"}  # public name → the pip extra that it needs


def __getattr__(name: str):
    if name not in _IMPORTED_ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _IMPORTED_ON_USE[name]
    try:
        value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    except ModuleNotFoundError as error:
        if name not in _EXTRAS:
            raise
        raise CdcError(f"cdc_jax.{name} needs the package {error.name}: pip install '.[{_EXTRAS[name]}]'.") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
