"""Decoding and encoding end to end: for several step counts, single images and batches.

  python benchmarks/decode.py [--width 16] [--side 256] [--steps 1 5 17 65] [--batch 4] [--repeats 3]

It measures the time from a file's bytes to pixels and back, for a model with random weights, interleaved with a
reference convolution. The FLOPs are those of the networks; the time includes everything else, such as entropy coding.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from codec_case import fresh_codec, waves  # noqa: E402
from timing import LIMIT, executed_flops, limit_program, print_table, sized_parser, time_interleaved  # noqa: E402

from cdc_jax.codec.decoding import sample  # noqa: E402
from cdc_jax.codec.encoding import encode_latents  # noqa: E402


def main() -> None:
    parser = sized_parser(__doc__, width=16, side=256, repeats=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 17, 65])
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    codec, image = fresh_codec(args.width), waves(args.side, args.side)
    data = codec.compress(image)
    config, params = codec.config, codec.params
    y_hat = np.zeros((1, args.side // 16, args.side // 16, config.latent_channels), np.float32)

    def decode_flops(steps: int) -> float:
        numbers = np.uint32(0), np.float32(1), np.float32(0)
        return executed_flops(lambda *given: sample(config, steps, False, *given), params, y_hat, *numbers)

    limit, limit_flops = limit_program()
    programs, flops = {LIMIT: limit}, {LIMIT: limit_flops}
    programs["encode"] = lambda: codec.compress(image)
    flops["encode"] = executed_flops(lambda *given: encode_latents(config, *given), params, image[None])
    programs["read the symbols (no network)"] = lambda: codec.read_symbols(data)
    flops["read the symbols (no network)"] = 0.0
    for steps in args.steps:
        name = f"decode, {steps} steps"
        programs[name] = lambda steps=steps: codec.decompress(data, steps=steps)
        flops[name] = decode_flops(steps)
    steps = args.steps[0]
    for name, size in (("encode", args.batch), (f"decode, {steps} steps", args.batch)):
        flops[f"{name}, {size} at once"] = size * flops[name]
    programs[f"encode, {args.batch} at once"] = lambda: codec.compress_batch([image] * args.batch)
    programs[f"decode, {steps} steps, {args.batch} at once"] = lambda: codec.decompress_batch(
        [data] * args.batch, steps=steps
    )
    print(f"d = {args.width}, {args.side}×{args.side}, float32")
    print_table(time_interleaved(programs, args.repeats), flops, f"decode, {steps} steps")


if __name__ == "__main__":
    main()
