"""Peak memory and time of encoding and decoding by image size, each size in a separate process.

  python benchmarks/memory.py [--width 16 | --model BUNDLE] [--steps 1] [--sizes 256x256 6000x4000] [--tile N]

Without a bundle, the weights are random. The image is made of sine waves and noise. The peak is that of the whole
process, including JAX and the compiler; the next column is the estimate that --max-memory uses. Times are those of a
second call, without compilation; "of limit" compares decoding with a reference convolution.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--model", type=Path, metavar="BUNDLE")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--tile", type=int, help="of decoding (default: the codec's)")
    sizes = ["256x256", "768x512", "1024x1024", "2048x1536", "6000x4000"]
    parser.add_argument("--sizes", nargs="+", default=sizes, metavar="WxH")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args)))
        return
    print(f"{args.model or f'd = {args.width}'}, {args.steps} steps; GiB and seconds")
    print(f"{'image':>12} {'encode':>7} {'peak':>6} {'decode':>7} {'peak':>6} {'estimate':>9} {'of limit':>9}")
    for size in args.sizes:
        command = [sys.executable, __file__, "--child", size, *sys.argv[1:]]
        measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        print(
            f"{size:>12} {measured['encode_seconds']:7.2f} {measured['encode_bytes'] / 2**30:6.2f}"
            f" {measured['decode_seconds']:7.2f} {measured['decode_bytes'] / 2**30:6.2f}"
            f" {measured['estimate_bytes'] / 2**30:9.2f} {measured['of_limit']:9.0%}",
            flush=True,
        )


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One row of the table. The peak only grows, so encoding, which needs less memory, comes before decoding."""
    from codec_case import fresh_codec, waves
    from timing import limit_rate

    from cdc_jax import load_codec
    from cdc_jax.codec import memory, tiling
    from cdc_jax.io.images import pad_to_multiple
    from cdc_jax.models.config import STRIDE

    columns, rows = (int(side) for side in args.child.split("x"))
    codec, image = load_codec(args.model) if args.model else fresh_codec(args.width), waves(rows, columns)
    height, width, _ = pad_to_multiple(image, STRIDE).shape
    tile = args.tile or tiling.default_tile(height, width)
    data = codec.compress(image)
    encode_bytes = peak_bytes()
    codec.decompress(data, steps=args.steps, tile=tile)
    decode_bytes = peak_bytes()
    start = time.perf_counter()
    codec.compress(image)
    middle = time.perf_counter()
    codec.decompress(data, steps=args.steps, tile=tile)
    decode_seconds = time.perf_counter() - middle
    return {
        "encode_seconds": middle - start,
        "encode_bytes": encode_bytes,
        "decode_seconds": decode_seconds,
        "decode_bytes": decode_bytes,
        "estimate_bytes": memory.decoding_bytes(height, width, tile, codec.config),
        "of_limit": decode_flops(codec, height, width, tile, args.steps) / decode_seconds / limit_rate(),
    }


def decode_flops(codec, height: int, width: int, tile: int | None, steps: int) -> float:
    """FLOPs of the networks for one image of this padded size."""
    import jax
    import numpy as np
    from timing import executed_flops

    from cdc_jax.codec import memory, tiling
    from cdc_jax.codec.decoding import predict, prepare, sample
    from cdc_jax.models.config import LATENT_STRIDE

    rows, columns = tiling.tile_shape(height, width, tile)
    cells = (1, rows // LATENT_STRIDE, columns // LATENT_STRIDE, codec.config.latent_channels)
    y_hat, one = jax.ShapeDtypeStruct(cells, np.float32), np.float32(1)
    quality = [np.array([0.5], np.float32)] if codec.config.variable_rate else []
    if (rows, columns) == (height, width):
        arguments = codec.params, y_hat, np.uint32(0), one, one, *quality
        return executed_flops(lambda *given: sample(codec.config, steps, False, *given), *arguments)
    x = jax.ShapeDtypeStruct((1, rows, columns, 3), np.float32)
    once = functools.partial(prepare, codec.config)
    each = functools.partial(predict, codec.config)
    tiles = tiling.tile_count(height, width, tile)
    kept = min(tiles, memory.tiles_to_keep(height, width, tile, codec.config, jax.local_devices()[:1]))
    maps = jax.eval_shape(once, codec.params, y_hat, *quality)
    flops = (kept + steps * (tiles - kept)) * executed_flops(once, codec.params, y_hat, *quality)
    return flops + steps * tiles * executed_flops(each, codec.params, maps, x, one, *quality)


def peak_bytes() -> int:
    """Peak memory of this process. Linux reports KiB, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
