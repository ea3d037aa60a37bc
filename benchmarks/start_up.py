"""From `cdc decompress` typed to the first U-Net step, stage by stage, in a first process and in a second one.

  python benchmarks/start_up.py --model BUNDLE [--width 768] [--height 512]

Each is a process of its own with the cache of compiled programs in a folder of its own, empty at first. The picture is
noise: its content does not matter here.
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


if __name__ == "__main__":
    main()
