"""From `cdc decompress` typed to the first U-Net step, in a first process and in a second one.

  python benchmarks/start_up.py --model BUNDLE [--width 768] [--height 512]

Each is a process of its own with the cache of compiled programs in a folder of its own, empty at first. Stage by stage
in a script that does what the command does, up to the compiled program; then the command itself, in 1 and in 2 steps:
less the time of a step, the first is what comes before it, the picture's own share (context maps) and writing the PNG
included. The picture is noise: its content does not matter here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from timing import LIMIT, limit_rate  # noqa: E402

CHILD = """
import os, sys, time
stages = [("Python", time.time(), time.process_time())]
def done(name):
    stages.append((name, time.time(), time.process_time()))
from cdc_jax import compilation_cache
compilation_cache.enable()
done("import jax")
import numpy as np
from cdc_jax import codec
done("import cdc_jax.codec")
opened = codec.load_codec(os.environ["BENCHMARK_MODEL"])
done("load the bundle")
container, symbols = opened._read(open(os.environ["BENCHMARK_FILE"], "rb").read())
y_hat = symbols.y.astype(np.float32) + symbols.mean
done("entropy decoding")
arguments = (opened.config, opened.config.decode_steps, False, opened._params, y_hat[None])
traced = codec.synthesize.trace(*arguments, np.uint32(0), np.float32(0.8), np.float32(0))
done("trace")
lowered = traced.lower()
done("lower")
lowered.compile()
done("compile, or load the program")
last = (float(os.environ["BENCHMARK_START"]), 0.0)
for name, wall, core in stages:
    print(f"{name:32} {wall - last[0]:8.2f} {core - last[1]:8.2f}")
    last = (wall, core)
print(f"{'total':32} {last[0] - float(os.environ['BENCHMARK_START']):8.2f} {last[1]:8.2f}")
"""


COMMAND_RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", metavar="BUNDLE", type=Path, required=True)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--height", type=int, default=512)
    args = parser.parse_args()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as folder:
        picture, file = Path(folder) / "picture.png", Path(folder) / "picture.cdc"
        make = (
            "import sys, numpy as np; from PIL import Image; "
            f"Image.fromarray(np.random.default_rng(0).integers(0, 256, ({args.height}, {args.width}, 3), np.uint8))"
            ".save(sys.argv[1])"
        )
        environment |= {"PYTHONPATH": path, "CDC_JAX_CACHE": str(Path(folder) / "cache")}
        subprocess.run([sys.executable, "-c", make, picture], env=environment, check=True)
        compress = [sys.executable, "-m", "cdc_jax", "compress", "-q", picture, "--model", args.model, "-o", file]
        subprocess.run(compress, env={**environment, "CDC_JAX_CACHE": "off"}, check=True)
        environment |= {"BENCHMARK_MODEL": str(args.model), "BENCHMARK_FILE": str(file)}
        for which in ("first start", "second start"):
            print(f"\n{which:32} {'s':>8} {'core s':>8}", flush=True)
            now = {"BENCHMARK_START": repr(time.time())}
            subprocess.run([sys.executable, "-c", CHILD], env={**environment, **now}, check=True)
        one, two = (seconds_of_command(steps, file, args.model, environment) for steps in (1, 2))
        convolution = 2 * 9 * 128**4 / limit_rate()
        before = 2 * one - two
        print(f"\ncdc decompress --steps=1: {one:.2f} s, --steps=2: {two:.2f} s, before the first step {before:.2f} s:")
        print(f"{before / convolution:.0f} times the {LIMIT}, which takes {1e3 * convolution:.1f} ms")


def seconds_of_command(steps: int, file: Path, model: Path, environment: dict[str, str]) -> float:
    """The fastest run, after one that compiles."""
    command = [sys.executable, "-m", "cdc_jax", "decompress", "-q", "-f", file, "--model", model, f"--steps={steps}"]
    seconds = []
    for _ in range(1 + COMMAND_RUNS):
        start = time.perf_counter()
        subprocess.run([*command, "-o", file.with_suffix(".decoded.png")], env=environment, check=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


if __name__ == "__main__":
    main()
