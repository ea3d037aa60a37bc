"""A folder of images of many sizes through `cdc compress` and `cdc decompress`: total time, and the share of compiling.

  python benchmarks/many_sizes.py [--against CHECKOUT] [--images 50] [--model BUNDLE] [--skip-compress]

Every image has another size, with sides of 256 to 1024 pixels. The program cache is empty at first; a second
`cdc decompress` finds the programs of the first. "Compiling" is tracing, lowering and compiling, as JAX reports them.
Pixels are compared with those of each file alone for a few of the files (`--alone`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIDES = 256, 1024

# Runs a command line, and prints the seconds that JAX has traced, lowered and compiled, and the number of programs.
COMMAND = """
import json, sys
import jax
spent = []
def add(name, seconds, **_):
    if name.endswith(("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")):
        spent.append((name.rpartition("/")[-1], seconds))
jax.monitoring.register_event_duration_secs_listener(add)
from cdc_jax.cli import main
code = main(sys.argv[1:])
compiled = sum(name == "backend_compile_duration" for name, _ in spent)
print(json.dumps([sum(seconds for _, seconds in spent), compiled]))
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--against", metavar="CHECKOUT", type=Path, help="another checkout of this repository")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--alone", type=int, default=3, help="files that are decoded alone as well (default: 3)")
    parser.add_argument("--model", metavar="BUNDLE", type=Path, help="default: the shipped model")
    parser.add_argument("--skip-compress", action="store_true", help="compress with this checkout only")
    args = parser.parse_args()
    checkouts = {"this": ROOT} if args.against is None else {"this": ROOT, "other": args.against.resolve()}
    model = [] if args.model is None else ["--model", str(args.model.resolve())]
    print(f"{'':34}{'s':>8}{'core s':>9}{'compiling, s':>14}{'share':>8}{'programs':>10}")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        _make_images(top / "images", args.images)
        for name, root in checkouts.items():
            side = top / name
            side.mkdir()
            source = side if name == "this" or not args.skip_compress else top / "this"
            if source is side:
                _run(f"compress, {name}", root, side, ["compress", top / "images", "-o", side / "files", *model])
            decompress = ["decompress", source / "files", "-o", side / "decoded", *model]
            _run(f"decompress, {name}", root, side, decompress)
            _run(f"decompress, {name}, again", root, side, decompress)
            alone = sorted((source / "files").iterdir())[: args.alone]
            if alone:
                _compare(root, side, alone, model)
        if len(checkouts) == 2:
            pairs = [(path.read_bytes(), top / "other/files" / path.name) for path in (top / "this/files").iterdir()]
            same = [data == other.read_bytes() for data, other in pairs if other.exists()]
            print(f"{sum(same)} of {len(same)} files are the same")
            _differences("this and other", top / "this/decoded", top / "other/decoded")


def _make_images(folder: Path, count: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        width, height = random.integers(SIDES[0], SIDES[1], 2, endpoint=True)
        coarse = random.integers(0, 256, (height // 24, width // 24, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"{index:03}.png", compress_level=1)


def _run(title: str | None, root: Path, side: Path, words: list) -> None:
    unset = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {"PYTHONPATH": str(root), "CDC_JAX_CACHE": str(side / "cache")}
    command = [sys.executable, "-c", COMMAND, *map(str, words), "--quiet", "--force"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, env=environment, cwd=side, check=True, capture_output=True, text=True)
    seconds, after = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    compiling, programs = json.loads(done.stdout)
    if title is not None:
        shown = f"{seconds:8.1f}{core:9.1f}{compiling:14.1f}{compiling / seconds:8.0%}{programs:10}"
        print(f"{title:34}{shown}", flush=True)


def _compare(root: Path, side: Path, files: list[Path], model: list[str]) -> None:
    (side / "alone").mkdir(exist_ok=True)
    for path in files:
        _run(None, root, side, ["decompress", path, "-o", side / "alone" / path.with_suffix(".png").name, *model])
    _differences("in the folder and alone", side / "decoded", side / "alone")


def _differences(title: str, first: Path, second: Path) -> None:
    changed = total = largest = 0
    for path in second.iterdir():
        a, b = (np.asarray(Image.open(folder / path.name)).astype(int) for folder in (first, second))
        changed, total = changed + (a != b).sum(), total + a.size
        largest = max(largest, np.abs(a - b).max())
    print(f"{title}: {changed / total:.1e} of the samples differ, by at most {largest} of 255")


if __name__ == "__main__":
    main()
