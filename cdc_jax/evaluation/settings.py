"""What to evaluate: the settings of `cdc evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cdc_jax.io.files import MAX_PIXELS

DEFAULT_METRICS = ("psnr-rgb", "ssim", "ms-ssim-rgb", "lpips-alex")
SAME_SIZE_METRICS = ("psnr-rgb", "ms-ssim-rgb", "lpips-alex", "lpips-vgg", "dists")
MIN_OVERLAP = 0.75  # of two curves' common range of quality
DEFAULT_CODECS = ("jpeg", "webp", "avif", "jxl")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to evaluate.

    Attributes:
      images: a folder of images.
      out: the folder for everything that is written; finished results in it are used again.
      models: for each curve, its bundles; None: the model that comes with the package, or with `released` none.
      released: a folder of the authors' checkpoints, imported and evaluated beside `models`.
      steps: step counts of our decoding, 0 for the preview; None: by the model, see `cdc.default_steps`.
      seed, gamma: seed and scale of our decoding's noise; gamma None: each bundle's own.
      qualities: qualities of our models of every rate, 0 to 100; None: a list of them.
      targets_bpp: sizes in bits per pixel; of every image, every codec's largest files within them are compared, in
        place of its qualities.
      metrics: names in `metrics.registry`; None: a list that depends on `targets_bpp`.
      codecs: keys of `baselines.BASELINES`.
      codec_qualities: qualities of every baseline; None: each one's own, chosen by the sizes of files.
      anchor: the curve that BD-rates refer to; None: the first baseline.
      min_overlap: the part of their common range of quality that two curves must share for a BD-rate.
      published: a CSV of published curves.
      published_codecs: names of those to draw; None: a short list.
      data_set: the name of `images` in that CSV; None: recognized, if they are Kodak's.
      fid_weights: Inception weights for the metric fid.
      max_pixels: limit on an image's pixels.
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
        """The metrics asked for, or the default ones."""
        if self.metrics is not None:
            return self.metrics
        return SAME_SIZE_METRICS if self.targets_bpp else DEFAULT_METRICS
