"""Where training pictures come from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import ml_collections
import numpy as np
from jaxtyping import UInt8

from cdc_jax.errors import CdcError, ConfigError, ImageError
from cdc_jax.images import load_image

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}

# The everyday photographs among scikit-image's pictures (licences: docs/pictures.md). Drawings, text pages, tiny
# pictures, and those through a microscope or a space telescope are left out.
SCIKIT_IMAGE_PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)


def picture_paths(data: ml_collections.ConfigDict) -> list[Path]:
    """Paths of all pictures of a source, sorted.

    Raises:
      ConfigError: the folder does not exist or holds no picture.
      CdcError: the package that should bring the pictures is not installed.
    """
    if data.source == "scikit-image":
        spec = importlib.util.find_spec("skimage")
        if spec is None or spec.origin is None:
            raise CdcError("the demo's photographs come with scikit-image: pip install '.[demo]'")
        folder = Path(spec.origin).parent / "data"
        paths = [folder / name for name in SCIKIT_IMAGE_PHOTOGRAPHS]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise CdcError(f"the installed scikit-image does not bring {missing[0]}; install scikit-image 0.25 or 0.26")
        return paths
    folder = Path(data.path)
    if not folder.is_dir():
        raise ConfigError(f"data.path is {data.path!r}, which is not a folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise ConfigError(f"data.path is {data.path!r}, which holds no pictures")
    return paths


def split_held_out(paths: list[Path], held_out: str) -> tuple[list[Path], Path | None]:
    """(training pictures, the held-out one, None where `held_out` is empty).

    Raises:
      ConfigError: no picture has that file name, or no other is left to train on.
    """
    if not held_out:
        return paths, None
    chosen = [path for path in paths if path.name == held_out]
    if not chosen:
        raise ConfigError(f"data.held_out is {held_out!r}, but no picture of the source has that name")
    rest = [path for path in paths if path.name != held_out]
    if not rest:
        raise ConfigError("data.held_out is the only picture of the source; nothing is left to train on")
    return rest, chosen[0]


def load_pictures(paths: list[Path], min_side: int) -> list[UInt8[np.ndarray, "h w 3"]]:
    """All pictures in memory.

    Raises:
      ImageError: a picture is unreadable, or smaller than `min_side` on a side.
    """
    pictures = []
    for path in paths:
        picture, _ = load_image(path)
        if min(picture.shape[:2]) < min_side:
            h, w = picture.shape[:2]
            raise ImageError(f"{path} is {w}×{h} pixels, smaller than the crops of {min_side} (data.crop)")
        pictures.append(picture)
    return pictures
