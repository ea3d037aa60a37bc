"""Decoding an image in tiles and several steps, with and without keeping what the steps of a tile have in common.

  python benchmarks/tiled_steps.py [--against CHECKOUT] [--model BUNDLE] [--size 2048x1536] [--steps 4 8] [--repeats 3]

Each case runs in a process of its own, which decodes twice and measures the second time; the cases alternate. The table
shows the least CPU and wall-clock seconds and the largest peak memory. It is an error if the pixels of two cases
differ. `--against` adds another checkout of this repository, such as an older one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [os.environ.get("CDC_CHECKOUT", str(ROOT)), str(ROOT / "benchmarks")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--model", metavar="BUNDLE", help="default: the shipped model of this checkout")
    parser.add_argument("--size", default="2048x1536", metavar="WxH")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.model = args.model or str(ROOT / "cdc_jax" / "shipped")
    if args.child:
        steps, limit = args.child
        print(json.dumps(measure(args.model, args.size, int(steps), {"max_memory_bytes": 1} if limit else {})))
        return
    cases = {"kept": (ROOT, ""), "computed at every step": (ROOT, "limited")}
    if args.against:
        cases["the other checkout"] = args.against, ""
    print(f"{args.size}\n{'steps':>5} {'':24} {'core s':>7} {'ratio':>6} {'seconds':>8} {'peak GiB':>9}")
    for steps in args.steps:
        runs: dict[str, list[dict]] = {name: [] for name in cases}
        for _ in range(args.repeats):
            for name, (checkout, limit) in cases.items():
                runs[name].append(child(checkout, sys.argv[1:], steps, limit))
        assert len({run["pixels"] for several in runs.values() for run in several}) == 1, "the pixels differ"
        least = {name: min(run["core_seconds"] for run in several) for name, several in runs.items()}
        for name, several in runs.items():
            seconds, peak = min(run["seconds"] for run in several), max(run["peak_bytes"] for run in several) / 2**30
            ratio = least[name] / least["computed at every step"]
            print(f"{steps:5} {name:24} {least[name]:7.2f} {ratio:6.2f} {seconds:8.2f} {peak:9.2f}", flush=True)


def child(checkout: Path, arguments: list[str], steps: int, limit: str) -> dict:
    """The measurement of one process that imports this checkout's package."""
    command = [sys.executable, __file__, *arguments, "--child", str(steps), limit]
    environment = os.environ | {"CDC_CHECKOUT": str(checkout.resolve()), "PYTHONPATH": ""}
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output.splitlines()[-1])


def measure(model: str, size: str, steps: int, limit: dict) -> dict:
    """Decodes waves and noise of this size twice; measures the second time."""
    from codec_case import waves

    from cdc_jax import load_codec

    codec = load_codec(model)
    columns, rows = map(int, size.split("x"))
    data = codec.compress(waves(rows, columns))
    codec.decompress(data, steps=steps, **limit)
    start, core_start = time.perf_counter(), time.process_time()
    image = codec.decompress(data, steps=steps, **limit)
    return {
        "core_seconds": time.process_time() - core_start,
        "seconds": time.perf_counter() - start,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "pixels": hashlib.sha256(image).hexdigest(),
    }


if __name__ == "__main__":
    main()
