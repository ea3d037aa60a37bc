"""The time from the start of `cdc decompress` to the first U-Net step, in a first process and in a second one.

  python benchmarks/start_up.py --model BUNDLE [--width 768] [--height 512]

A script that does the same as the command is timed stage by stage; then the command itself, with one step, until its
image is written. Each runs in a separate process, with a compilation cache that is empty at first. The work per image
(context maps and their share of the U-Net) is a separate program here, whose compilation does not count. The image is
noise, since its content does not matter.
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

from timing import LIMIT, LIMIT_FLOPS, limit_rate  # noqa: E402

CHILD = """
import os, sys, time
last, total = (float(os.environ["BENCHMARK_START"]), 0.0), [0.0, 0.0]
def done(name, counts=True):
    global last
    now = time.time(), time.process_time()
    if counts:
        spent = [new - old for new, old in zip(now, last)]
        total[:] = [sum(pair) for pair in zip(total, spent)]
        print(f"{name:32} {spent[0]:8.2f} {spent[1]:8.2f}")
    last = now
done("Python")
from cdc_jax.runtime import compilation_cache
compilation_cache.enable()
done("import jax")
import numpy as np
from cdc_jax.codec import codec, decoding
from cdc_jax.io.cdc_file import MAX_LEVEL
from cdc_jax.models.params import merge
done("import cdc_jax.codec.codec")
opened = codec.load_codec(os.environ["BENCHMARK_MODEL"])
done("load the bundle")
symbols = opened.decode_symbols(open(os.environ["BENCHMARK_FILE"], "rb").read())
y_hat = symbols.y_hat[None]
quality = np.array([symbols.level / MAX_LEVEL], np.float32) if opened.config.variable_rate else None
done("entropy decoding")
arguments = (opened.config, opened.config.decode_steps, False, opened.params, y_hat)
numbers = np.uint32(0), np.float32(opened.config.decode_gamma), np.float32(0)
traced = decoding.synthesize.trace(*arguments, *numbers, quality, compute_type="float32")
done("trace")
lowered = traced.lower()
done("lower")
lowered.compile()
done("compile, or load the program")
import jax
def share(params, y_hat, quality):
    model = merge(opened.config, params)
    return model.unet.prepare(model.compressor.context(y_hat, quality))
program = jax.jit(share).lower(opened.params, y_hat, quality).compile()
done("its program", counts=False)
jax.block_until_ready(program(opened.params, y_hat, quality))
done("the image's share")
print(f"{'total':32} {total[0]:8.2f} {total[1]:8.2f}")
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
        image, file = Path(folder) / "image.png", Path(folder) / "image.cdc"
        make = (
            "import sys, numpy as np; from PIL import Image; "
            f"Image.fromarray(np.random.default_rng(0).integers(0, 256, ({args.height}, {args.width}, 3), np.uint8))"
            ".save(sys.argv[1])"
        )
        environment |= {"PYTHONPATH": path, "CDC_JAX_CACHE": str(Path(folder) / "cache")}
        subprocess.run([sys.executable, "-c", make, image], env=environment, check=True)
        compress = [sys.executable, "-m", "cdc_jax", "compress", "--quiet", image, "--model", args.model, "-o", file]
        subprocess.run(compress, env={**environment, "CDC_JAX_CACHE": "off"}, check=True)
        environment |= {"BENCHMARK_MODEL": str(args.model), "BENCHMARK_FILE": str(file)}
        for which in ("first start", "second start"):
            print(f"\n{which:32} {'s':>8} {'core s':>8}", flush=True)
            now = {"BENCHMARK_START": repr(time.time())}
            subprocess.run([sys.executable, "-c", CHILD], env={**environment, **now}, check=True)
        command = seconds_of_command(file, args.model, environment)
    convolution = LIMIT_FLOPS / limit_rate()
    print(f"\ncdc decompress --steps=1: {command:.2f} s until the image is written,")
    print(f"{command / convolution:.0f} times the {LIMIT}, which takes {1e3 * convolution:.1f} ms")


def seconds_of_command(file: Path, model: Path, environment: dict[str, str]) -> float:
    """Time until the image is written: that of the fastest run, after one that compiles."""
    decoded = file.with_suffix(".decoded.png")
    command = [sys.executable, "-m", "cdc_jax", "decompress", "--quiet", file, "--model", model, "--steps=1"]
    seconds = []
    for _ in range(1 + COMMAND_RUNS):
        start = time.time()
        subprocess.run([*command, "-o", decoded], env=environment, check=True)
        seconds.append(decoded.stat().st_mtime - start)
        decoded.unlink()
    return min(seconds[1:])


if __name__ == "__main__":
    main()
