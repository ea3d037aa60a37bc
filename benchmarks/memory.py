"""Peak memory of encoding and decoding against the picture's size, each in a process of its own.

  python benchmarks/memory.py [--width 16] [--steps 1] [--sizes 256x256 768x512 6000x4000] [--tile N]

A model of random weights; the picture is made of sine waves and noise. Seconds are those of all cores together, start
and compilation apart; the peak is that of the whole process, JAX and the compiler included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--tile", type=int, help="of decoding (default: the codec's)")
    sizes = ["256x256", "768x512", "1024x1024", "2048x1536", "6000x4000"]
    parser.add_argument("--sizes", nargs="+", default=sizes, metavar="WxH")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.width, args.steps, args.tile)))
        return
    print(f"d = {args.width}, {args.steps} steps")
    print(f"{'picture':>12} {'encode':>10} {'peak':>9} {'decode':>10} {'peak':>9}")
    for size in args.sizes:
        command = [sys.executable, __file__, "--child", size, f"--width={args.width}", f"--steps={args.steps}"]
        command += [f"--tile={args.tile}"] if args.tile else []
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        (encode_seconds, encode_bytes), (decode_seconds, decode_bytes) = found["encode"], found["decode"]
        pixels = np.prod([int(side) for side in size.split("x")])
        print(
            f"{size:>12} {encode_seconds:8.1f} s {encode_bytes / 2**30:5.2f} GiB {decode_seconds:8.1f} s "
            f"{decode_bytes / 2**30:5.2f} GiB {1e6 * decode_seconds / pixels / args.steps:6.2f} s/MP step",
            flush=True,
        )


def measure(size: str, width: int, steps: int, tile: int | None) -> dict[str, tuple[float, int]]:
    """(core seconds, peak bytes so far) of encoding, then of decoding; memory only grows, and decoding takes more."""
    from codec_case import codec_and_picture

    columns, rows = (int(side) for side in size.split("x"))
    codec, picture = codec_and_picture(width, rows, columns)
    start = time.process_time()
    data = codec.compress(picture)
    found = {"encode": (time.process_time() - start, peak_bytes())}
    start = time.process_time()
    codec.decompress(data, steps=steps, tile=tile)
    found["decode"] = time.process_time() - start, peak_bytes()
    return found


def peak_bytes() -> int:
    """Of this process: Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
