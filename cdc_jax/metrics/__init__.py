"""Metrics of decoded images, imported on first use.

`load_metric` and `load_set_metric` load a metric by its name in `docs/metrics.md`. The module `lpips` has LPIPS as a
differentiable function.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdc_jax.metrics.distortion import psnr_db
    from cdc_jax.metrics.frechet import frechet_distance
    from cdc_jax.metrics.lpips import load_lpips
    from cdc_jax.metrics.registry import (
        IMAGE_METRICS,
        SET_METRICS,
        ImageMetric,
        SetMetric,
        load_metric,
        load_set_metric,
    )

__all__ = [
    "IMAGE_METRICS",
    "SET_METRICS",
    "ImageMetric",
    "SetMetric",
    "frechet_distance",
    "load_lpips",
    "load_metric",
    "load_set_metric",
    "psnr_db",
]

_MODULES = {"frechet_distance": "frechet", "load_lpips": "lpips", "psnr_db": "distortion"}  # the rest: registry


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'registry')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
