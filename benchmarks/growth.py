"""How computation and memory grow with the number of pixels and the model's width. Nothing is timed.

  python benchmarks/growth.py [--widths 16 32 64] [--sides 256 512]

It prints thousands of FLOP per pixel, counting the products and convolutions of the traced programs, and bytes per
pixel and unit of width that the programs compiled for this machine need besides their arguments and results.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from timing import executed_flops  # noqa: E402

from cdc_jax.codec.decoding import predict, prepare, sample  # noqa: E402
from cdc_jax.codec.encoding import encode_latents  # noqa: E402
from cdc_jax.models.config import LATENT_STRIDE, ModelConfig  # noqa: E402
from cdc_jax.models.params import shapes  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512])
    args = parser.parse_args()
    print(f"{'':13} {'kFLOP a pixel':^26} {'bytes a pixel and width':^26}")
    print(f"{'d':>4} {'side':>5} {'a step':>9} {'an image':>10} {'encode':>7} {'tile':>9} {'decode':>8} {'encode':>7}")
    for width in args.widths:
        for side in args.sides:
            cells = [f"{number:.0f}" for number in growth(ModelConfig(width=width), side)]
            print("{:>4} {:>5} {:>9} {:>10} {:>7} {:>9} {:>8} {:>7}".format(width, side, *cells), flush=True)


def growth(config: ModelConfig, side: int) -> list[float]:
    """One row: FLOPs of a U-Net step, of what an image needs once, of encoding; then memory of a tile's U-Net call, of
    decoding whole, of encoding."""

    def decode(steps):
        return lambda *given: sample(config, steps, False, *given)

    def encode(params, image):
        return encode_latents(config, params, image)

    def tile(params, y_hat, x, time):
        return predict(config, params, prepare(config, params, y_hat), x, time)

    cells = (1, side // LATENT_STRIDE, side // LATENT_STRIDE, config.latent_channels)
    params, y_hat = shapes(config), jax.ShapeDtypeStruct(cells, np.float32)
    numbers = [jax.ShapeDtypeStruct((), kind) for kind in (np.uint32, np.float32, np.float32)]
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)
    noisy = jax.ShapeDtypeStruct(image.shape, np.float32)
    programs = [(tile, (params, y_hat, noisy, numbers[1])), (decode(2), (params, y_hat, *numbers))]
    programs.append((encode, (params, image)))
    one, two = (executed_flops(decode(steps), params, y_hat, *numbers) for steps in (1, 2))
    flops = [two - one, 2 * one - two, executed_flops(encode, params, image)]
    memory = [jax.jit(f).lower(*given).compile().memory_analysis().temp_size_in_bytes for f, given in programs]
    pixels = side * side
    return [number / pixels / 1e3 for number in flops] + [size / pixels / config.width for size in memory]


if __name__ == "__main__":
    main()
