"""Seconds from a cold process to the first image: `cdc decompress` against the programs of `cdc export --serving`.

  python benchmarks/serving.py [--size 768x512] [--repeats 5]

The compact model of configs/compact.py with random weights. Both find their compiled programs in a cache of their own,
which a first run has filled, and run alternately. The served process is examples/serve.py; its image is there when the
answer to a first request has arrived.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--size", default="768x512", metavar="WxH")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, *map(int, args.size.split("x")))
        commands = {"cdc decompress": decompress, "serve.py, any size": serve_any, "serve.py, this size": serve_one}
        runs = {command: [] for command in commands}
        for _ in range(1 + args.repeats):
            for command, run in commands.items():
                before = core_seconds()
                runs[command].append((run(folder), core_seconds() - before))
    print(f"{'seconds':20} {'first start':>12} {'fastest':>8} {'median':>8} {'core':>8}")
    for command, [(first, _), *later] in runs.items():
        seconds, core = zip(*later, strict=True)
        print(f"{command:20} {first:12.2f} {min(seconds):8.2f} {statistics.median(seconds):8.2f} {min(core):8.2f}")


def core_seconds() -> float:
    """Of all child processes that have ended, which other programs on the machine disturb less than the clock."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def make_files(folder: Path, width: int, height: int) -> None:
    """Bundles with programs for any size and for this one, and a file."""
    from codec_case import compact_config, waves

    from cdc_jax import load_codec
    from cdc_jax.codec.bundle import save_bundle
    from cdc_jax.codec.serving import Serving
    from cdc_jax.models.initialization import initial_weights

    config = compact_config()
    weights = initial_weights(config, 0)
    padded = tuple(-(-side // 64) * 64 for side in (height, width))
    for name, size in (("any", None), ("one", padded)):
        save_bundle(folder / name, config, weights, provenance="random", half=True, serving=Serving(size))
    (folder / "image.cdc").write_bytes(load_codec(folder / "any").compress(waves(height, width)))


def environment(folder: Path, cache: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    variables = {"CDC_JAX_CACHE": cache} if cache == "cdc" else {"JAX_COMPILATION_CACHE_DIR": cache}
    return {**kept, "PYTHONPATH": path, **{key: str(folder / value) for key, value in variables.items()}}


def decompress(folder: Path) -> float:
    output = folder / "decoded.png"
    command = [sys.executable, "-m", "cdc_jax", "decompress", "--quiet", "--force", folder / "image.cdc"]
    start = time.time()
    subprocess.run(
        [*command, "--model", folder / "any", "-o", output], env=environment(folder, "cdc"), cwd=ROOT, check=True
    )
    return output.stat().st_mtime - start


def serve_any(folder: Path) -> float:
    return _serve(folder, "any")


def serve_one(folder: Path) -> float:
    return _serve(folder, "one")


def _serve(folder: Path, bundle: str) -> float:
    data = (folder / "image.cdc").read_bytes()
    command = [sys.executable, "examples/serve.py", folder / bundle, "0"]
    start = time.time()
    with subprocess.Popen(
        command,
        env=environment(folder, f"cache-{bundle}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/decompress", data) as answer:
            answer.read()
        seconds = time.time() - start
        process.terminate()
    return seconds


if __name__ == "__main__":
    main()
