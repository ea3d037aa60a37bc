"""The settings of `cdc evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cdc_jax.io.files import MAX_PIXELS

DEFAULT_METRICS = ("psnr-rgb", "ssim", "ms-ssim-rgb", "lpips-alex")
SAME_SIZE_METRICS = ("psnr-rgb", "ms-ssim-rgb", "lpips-alex", "lpips-vgg", "dists")
MIN_OVERLAP = 0.75  # see `curves.relative_overlap`
DEFAULT_CODECS = ("jpeg", "webp", "avif", "jxl")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to evaluate.

    Attributes:
      images: a folder of images, or one image file.
      out: the folder for all outputs; results in it are reused.
      models: the bundles of each of our curves; None: the shipped model, or none if `released` is given.
      released: a folder of the authors' checkpoints, to import and evaluate as well.
      steps: our codec's numbers of diffusion steps, 0 for the preview; None: see `cdc.default_steps`.
      seed, gamma: seed and scale of our codec's starting noise; gamma None: each bundle's default.
      qualities: qualities of our variable-rate models, 0 to 100; None: `cdc.DEFAULT_QUALITIES`.
      targets_bpp: target sizes in bits per pixel. If there are any, each image is coded to the largest file within each
        of them, and `qualities` and `codec_qualities` are ignored.
      metrics: names in `metrics.registry`; None: `DEFAULT_METRICS`, or with target sizes `SAME_SIZE_METRICS`.
      codecs: the baselines, keys of `baselines.BASELINES`.
      codec_qualities: qualities of every baseline, 0 to 100; None: qualities that result in typical file sizes.
      anchor: the reference curve of BD-rates; None: the first baseline.
      min_overlap: smallest `curves.relative_overlap` of two curves for a BD-rate, 0 to 1.
      published: a CSV file of published curves.
      published_codecs: names of the published curves to draw; None: a short list.
      data_set: the name of `images` in that file; None: "kodak" if they are Kodak's 24 images.
      fid_weights: file of Inception weights for the metric fid.
      max_pixels: larger images are refused.
      report_images: the largest number of images in the report; None: all.
    """

    images: str
    out: str
    models: Sequence[Sequence[str]] | None = None
    released: str | None = None
    steps: Sequence[int] | None = None
    seed: int = 0
    gamma: float | None = None
    qualities: Sequence[float] | None = None
    targets_bpp: Sequence[float] = ()
    metrics: Sequence[str] | None = None
    codecs: Sequence[str] = DEFAULT_CODECS
    codec_qualities: Sequence[int] | None = None
    anchor: str | None = None
    min_overlap: float = MIN_OVERLAP
    published: str | None = None
    published_codecs: Sequence[str] | None = None
    data_set: str | None = None
    fid_weights: str | None = None
    max_pixels: int = MAX_PIXELS
    report_images: int | None = 24

    @property
    def metric_names(self) -> Sequence[str]:
        """The metrics to compute: `metrics`, or the default ones."""
        if self.metrics is not None:
            return self.metrics
        return SAME_SIZE_METRICS if self.targets_bpp else DEFAULT_METRICS
