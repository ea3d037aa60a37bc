"""Folders at speed: images per second of `cdc compress FOLDER` and `cdc decompress FOLDER`, as a user runs them.

  python benchmarks/folders.py [--images 40] [--side 512] [--repeats 3] [--jobs 1 4] [TREE ...]

Crops of scikit-image's photographs as PNG files, and a compact model of random weights. Each TREE is a checkout of this
repository (default: this one). --jobs passes on this option, once for each number: 1 is one file after the other. All
are timed interleaved. Start-up is measured with one image and subtracted; cores busy are the processes' CPU time over
the time by the clock. On a machine with other work, compare only the ratios within a run.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from codec_case import compact_config  # noqa: E402

from cdc_jax.codec.bundle import save_bundle  # noqa: E402
from cdc_jax.io.images import read_image, write_image  # noqa: E402
from cdc_jax.models.initialization import initial_weights  # noqa: E402

PHOTOGRAPHS = ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "rocket.jpg")


def make_images(folder: Path, number: int, side: int) -> None:
    """Crops at different places of the photographs, which repeat where they are too small."""
    import skimage

    data, rng = Path(skimage.__file__).parent / "data", np.random.default_rng(0)
    photographs = [read_image(data / name) for name in PHOTOGRAPHS if (data / name).exists()]
    for index in range(number):
        photograph = photographs[index % len(photographs)]
        top, left = (int(rng.integers(0, size)) for size in photograph.shape[:2])
        rows, columns = (np.arange(side) + top) % photograph.shape[0], (np.arange(side) + left) % photograph.shape[1]
        write_image(folder / f"{index:03}.png", photograph[rows][:, columns])


def seconds_of(tree: Path, *words: str | Path) -> tuple[float, float]:
    """Time by the clock, and of all cores, of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "cdc_jax", *map(str, words), "--quiet"]
    subprocess.run(command, env=environment, cwd=tree, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("trees", metavar="TREE", type=Path, nargs="*", default=[ROOT])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="+", default=[None])
    args = parser.parse_args()
    variants = [(tree.resolve(), jobs) for tree in args.trees for jobs in args.jobs]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("many", "one"):
            (folder / part).mkdir()
        make_images(folder / "many", args.images + 1, args.side)
        shutil.move(folder / "many" / f"{args.images:03}.png", folder / "one")
        config = compact_config()
        save_bundle(folder / "bundle", config, initial_weights(config, 0), provenance="random weights")
        model = ("--model", folder / "bundle", "--force")
        commands = {
            "compress": lambda part: ("compress", folder / part, "-o", folder / f"{part}-files", *model),
            "decompress": lambda part: ("decompress", folder / f"{part}-files", "-o", folder / f"{part}-out", *model),
        }
        fastest: dict[tuple, tuple[float, float]] = {}
        for words in commands.values():
            for tree, _ in variants:
                seconds_of(tree, *words("one"))  # compiles
        for _ in range(args.repeats):
            for kind, words in commands.items():
                for part in ("one", "many"):
                    for tree, jobs in variants:
                        key, option = (kind, tree, jobs, part), () if jobs is None else ("--jobs", jobs)
                        measured = seconds_of(tree, *words(part), *option)
                        fastest[key] = min(fastest.get(key, (np.inf, np.inf)), measured)
        sizes = f"{args.images} images of {args.side}×{args.side}"
        print(f"{sizes}, fastest of {args.repeats}; load {os.getloadavg()[0]:.1f}")
        for kind in commands:
            for tree, jobs in variants:
                (start, start_cores), (whole, cores) = (fastest[kind, tree, jobs, part] for part in ("one", "many"))
                seconds = whole - start
                rate, busy = (args.images - 1) / seconds, (cores - start_cores) / seconds
                name = tree.name + (f" --jobs {jobs}" if jobs else "")
                print(f"{kind:10} {name}: {rate:.2f} images/s, {busy:.2f} cores busy, start-up {start:.1f} s")


if __name__ == "__main__":
    main()
