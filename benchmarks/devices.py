"""Decoding on 1, 2, 4 and 8 devices: a batch of images, and the tiles of one large image.

  python benchmarks/devices.py [--width 4] [--side 64] [--steps 1] [--devices 1 2 4 8]

On a CPU the devices are virtual and share its cores, so the time does not decrease. The benchmark then shows the
overhead in core seconds, and that the results are the same. With --real, on GPUs and TPUs, it runs on all devices.
Each number of devices runs in a separate process, which also measures the reference convolution.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

IMAGES = 8
TILE = 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--real", action="store_true", help="all devices there are, not virtual ones")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args)
        return
    print(f"d = {args.width}, {args.steps} steps: {IMAGES} images of {args.side}×{args.side}, and one of")
    print(f"{5 * args.side}×{5 * args.side} in tiles of {TILE}; seconds: clock / all cores; differences of 255")
    print(f"{'devices':>8} {'batch':>16} {'differs':>8} {'tiles':>16} {'differs':>8} {'GFLOP/s':>8}")
    with tempfile.TemporaryDirectory() as folder:
        reference = None
        for count in [0] if args.real else args.devices:
            measured = run(args, count, str(Path(folder) / f"{count}.npz"))
            pixels = np.load(Path(folder) / f"{count}.npz")
            reference = reference or pixels
            cells = []
            for name in ("batch", "tiles"):
                seconds, core_seconds = measured[name]
                differs = np.abs(pixels[name].astype(int) - reference[name]).max()
                cells.append(f"{seconds:7.2f} /{core_seconds:7.2f} {differs:8d}")
            print(f"{measured['devices']:8d} {' '.join(cells)} {measured['limit'] / 1e9:8.0f}", flush=True)


def run(args: argparse.Namespace, count: int, out: str) -> dict:
    """The measurements of a process with this number of virtual devices; 0: with the real ones."""
    command = [sys.executable, __file__, "--child", out, f"--width={args.width}", f"--side={args.side}"]
    environment = dict(os.environ)
    if count:
        flag = f"--xla_force_host_platform_device_count={count}"
        environment |= {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}", "JAX_PLATFORMS": "cpu"}
    command.append(f"--steps={args.steps}")
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace) -> None:
    """Prints wall-clock and core seconds of the second of two runs, and saves the pixels."""
    import jax
    from codec_case import fresh_codec, waves
    from timing import limit_rate

    codec, large = fresh_codec(args.width), waves(5 * args.side, 5 * args.side)
    side = args.side
    files = [codec.compress(np.ascontiguousarray(large[i * 16 : i * 16 + side, :side])) for i in range(IMAGES)]
    whole = codec.compress(large)
    programs = {
        "batch": lambda: np.stack(codec.decompress_batch(files, steps=args.steps)),
        "tiles": lambda: codec.decompress(whole, steps=args.steps, tile=TILE),
    }
    measured, pixels = {"devices": jax.device_count()}, {}
    for name, program in programs.items():
        program()
        start, start_core = time.perf_counter(), time.process_time()
        pixels[name] = program()
        measured[name] = (time.perf_counter() - start, time.process_time() - start_core)
    measured["limit"] = limit_rate()
    np.savez(args.child, **pixels)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
