"""Time and bytes of the shipped model, beside those of JPEG, WebP, AVIF and JPEG XL with files of the same size.

  python benchmarks/latency.py [--sizes 256x256 768x512 6000x4000] [--quality 40] [--steps 0 1 4] [--repeats 3]

The image is scikit-image's coffee.png, mirrored until it fills the size. All run in one process in turns, after a first
run that does not count; the fastest repetition is printed, and the process's largest memory so far. The other formats'
files are the largest that are no larger than the model's.
"""

from __future__ import annotations

import argparse
import functools
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from timing import time_interleaved  # noqa: E402

import cdc_jax  # noqa: E402
from cdc_jax.evaluation import baselines  # noqa: E402
from cdc_jax.evaluation.size_search import largest_within  # noqa: E402

Cases = Iterator[tuple[str, Callable[[], object], int | None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--sizes", nargs="+", default=["256x256", "768x512", "6000x4000"], metavar="WxH")
    parser.add_argument("--quality", type=float, default=40)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1, 4])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    codec = cdc_jax.load_codec()
    baselines.baseline_points(baselines.BASELINES)  # imports their plugins
    print(f"{'size':>11} {'':28} {'seconds':>9} {'core s':>9} {'bytes':>9}")
    for size in args.sizes:
        width, height = map(int, size.split("x"))
        image = photograph(height, width)
        data = codec.compress(image, quality=args.quality)
        cases = [*ours(codec, image, data, args.quality, args.steps), *others(image, len(data))]
        timed = time_interleaved({what: run for what, run, _ in cases}, args.repeats)
        for what, _, count in cases:
            seconds, core_seconds = timed[what]
            print(f"{size:>11} {what:28} {seconds:9.3f} {core_seconds:9.3f} {count or '':>9}", flush=True)
        print(f"{size:>11} peak memory so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def ours(codec: cdc_jax.Codec, image: np.ndarray, data: bytes, quality: float, step_counts: Sequence[int]) -> Cases:
    """What the model does, as (name, call, number of bytes that it writes)."""
    yield "compress", lambda: codec.compress(image, quality=quality), len(data)
    yield "read the symbols", lambda: codec.read_symbols(data), None
    for steps in step_counts:
        yield f"decompress, {steps} steps", functools.partial(codec.decompress, data, steps=steps), None


def others(image: np.ndarray, limit: int) -> Cases:
    """What the other formats do, with files of at most `limit` bytes, or their smallest."""
    for baseline in baselines.BASELINES.values():
        encode = functools.partial(baselines.encode, baseline, image)
        quality = largest_within(lambda quality, encode=encode: len(encode(quality)), 0, 100, limit) or 0
        file = encode(quality)
        yield f"{baseline.label}, encode", functools.partial(encode, quality), len(file)
        yield f"{baseline.label}, decode", functools.partial(baselines.decode, baseline, file), None


def photograph(height: int, width: int) -> np.ndarray:
    """coffee.png as uint8 [height, width, 3], mirrored at its borders until it fills the size."""
    import skimage

    from cdc_jax.io.images import read_image

    image = read_image(Path(skimage.__file__).parent / "data" / "coffee.png")
    rows, columns = (mirrored(size, length) for size, length in zip(image.shape[:2], (height, width), strict=True))
    return np.ascontiguousarray(image[rows][:, columns])


def mirrored(size: int, length: int) -> np.ndarray:
    """Indices 0, 1, …, size − 1, size − 1, …, 0, 0, … of this length."""
    places = np.arange(length) % (2 * size)
    return np.minimum(places, 2 * size - 1 - places)


if __name__ == "__main__":
    main()
