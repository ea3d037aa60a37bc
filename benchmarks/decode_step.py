"""One U-Net step: the plain U-Net, the prepared one, and the preparation that is shared by all steps.

  python benchmarks/decode_step.py [--width 64] [--side 256] [--repeats 10] [--bfloat16]

All are timed interleaved with a reference convolution, which sets the limit. The plain U-Net is that of
cdc_jax/models/plain_unet.py, jitted.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from timing import LIMIT, executed_flops, limit_program, print_table, sized_parser, time_interleaved  # noqa: E402
from unet_case import unet_case  # noqa: E402

from cdc_jax.models.params import merge  # noqa: E402
from cdc_jax.models.plain_unet import plain_unet  # noqa: E402


def main() -> None:
    parser = sized_parser(__doc__, width=64, side=256, repeats=10)
    parser.add_argument("--bfloat16", action="store_true", help="time the prepared U-Net in bfloat16 as well")
    args = parser.parse_args()
    config, weights, x, time, context = unet_case(args.width, args.side)

    def prepare(dtype=None):
        def run(weights, context, time):
            unet = merge(config, weights, unet_dtype=dtype).unet
            return unet.prepare(context), unet.embed(time)

        return run

    def step(ready, x, features):
        return ready(x, features)

    plain, once, quick = jax.jit(functools.partial(plain_unet, config)), jax.jit(prepare()), jax.jit(step)
    ready, features = once(weights, context, time)
    limit, limit_flops = limit_program()
    programs = {
        LIMIT: limit,
        "plain step": lambda: plain(weights, x, time, context),
        "prepared step": lambda: quick(ready, x, features),
        "preparation, once an image": lambda: once(weights, context, time),
    }
    flops = {
        LIMIT: limit_flops,
        "plain step": executed_flops(functools.partial(plain_unet, config), weights, x, time, context),
        "prepared step": executed_flops(step, ready, x, features),
        "preparation, once an image": executed_flops(prepare(), weights, context, time),
    }
    if args.bfloat16:
        ready_half, features_half = jax.jit(prepare(jnp.bfloat16))(weights, context, time)
        programs["prepared step, bfloat16"] = lambda: quick(ready_half, x, features_half)
        flops["prepared step, bfloat16"] = flops["prepared step"]
    expected, prepared = programs["plain step"](), programs["prepared step"]()
    difference = float(jnp.abs(prepared - expected).max() / jnp.abs(expected).max())
    print(f"d = {args.width}, {args.side}×{args.side}, float32; they differ by {difference:.1e} of the largest value")
    print_table(time_interleaved(programs, args.repeats), flops, "plain step")


if __name__ == "__main__":
    main()
