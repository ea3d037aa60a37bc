"""Fast stand-ins for models and metrics, which count their calls."""

from __future__ import annotations

import types
import zlib

import numpy as np

from cdc_jax.errors import ConfigError
from cdc_jax.metrics.distortion import psnr_db
from cdc_jax.models.config import ModelConfig


class FakeCodec:
    """`Codec`'s interface: stores the image with fewer levels; more steps, more noise.

    With `every_rate`, the higher the quality, the more levels: 64 apart at quality 0, 1 at 100.
    """

    def __init__(self, name, *, levels=32, prediction="x", every_rate=False):
        self.weights_sha256 = (name.encode().hex() * 64)[:64]
        rates = {"transform": True, "rate_anchors": 4, "decode_steps": 1} if every_rate else {}
        self.config = ModelConfig(prediction=prediction, width=8, **rates)
        self.levels = levels
        self.calls = []

    def compress(self, image, *, quality=None):
        self.calls.append("compress")
        return self._file(image, quality)

    def check_quality(self, quality):
        if not (self.config.variable_rate and 0 <= quality <= 100):
            raise ConfigError(f"quality is {quality}")

    def analyze(self, image):
        self.calls.append("analyze")
        return image

    def write(self, latents, *, quality=None):
        self.calls.append("write")
        return self._file(latents, quality)

    def part_bits(self, latents, *, quality=None):
        return (10.0, 30.0)

    def _file(self, image, quality):
        image = getattr(image, "pixels", image)
        levels = self.levels if quality is None else round(64 - 0.63 * quality)
        return np.array([*image.shape[:2], levels], "<u4").tobytes() + zlib.compress((image // levels).tobytes())

    def decompress(self, data, *, steps, seed, gamma):
        self.calls.append(f"decompress {steps}")
        height, width, levels = map(int, np.frombuffer(data[:12], "<u4"))
        coarse = np.frombuffer(zlib.decompress(data[12:]), np.uint8).reshape(height, width, 3)
        noise = np.random.default_rng(seed).integers(0, 1 + steps, coarse.shape)
        return np.clip(coarse.astype(int) * levels + levels // 2 + noise, 0, 255).astype(np.uint8)


class FakeBundles:
    """A loader of codecs: `fine`, `coarse`, …; a path is made one codec for ever."""

    def __init__(self):
        self.codecs = {}

    def __call__(self, path, *, max_pixels):
        name = str(path).rsplit("/", 1)[-1]
        levels = {"fine": 8, "middle": 16, "coarse": 32}.get(name, 24)
        prediction = "epsilon" if name.startswith("epsilon") else "x"
        return self.codecs.setdefault(
            name, FakeCodec(name, levels=levels, prediction=prediction, every_rate="every" in name)
        )

    @property
    def calls(self):
        return [call for codec in self.codecs.values() for call in codec.calls]


class FakeMetrics:
    """`metrics.registry`'s interface: PSNR, and the same negated under the name of a distance."""

    IMAGE_METRICS = ("psnr-rgb", "ssim", "ms-ssim-rgb", "lpips-alex", "lpips-vgg", "dists")
    SET_METRICS = ("fid", "fd-vgg")

    def __init__(self, smallest_side=0):
        self.references, self.batches = [], []
        self._smallest_side = smallest_side

    def load_metric(self, name, *, weights=None):
        def reference(image):
            self.references.append(name)
            return image

        def score(original, images):
            self.batches.append((name, len(images)))
            if min(original.shape[:2]) < self._smallest_side and name != "psnr-rgb":
                return np.full(len(images), np.nan)
            scores = np.array([psnr_db(original, image) for image in images])
            return scores if name == "psnr-rgb" else 1 / scores

        label, higher = {"psnr-rgb": ("PSNR (dB)", True)}.get(name, (name.upper(), False))
        return types.SimpleNamespace(name=name, label=label, higher_is_better=higher, reference=reference, score=score)

    def load_set_metric(self, name, *, weights=None):
        class Distance:
            label, higher_is_better = name.upper(), False

            def patches_features(self, image):
                return image.reshape(-1, 3)[::50].astype(np.float32)

            def restore(self, state):
                self.state = state

            def distance(self):
                return np.abs(self.state["reference"].mean(0) - self.state["decoded"].mean(0)).sum()

        return Distance()
