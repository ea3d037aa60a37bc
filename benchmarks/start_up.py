"""The time of `cdc compress` and `cdc decompress` as a user runs them: the first start, later starts, and leaving.

  python benchmarks/start_up.py [--against CHECKOUT] [--model BUNDLE] [--image FILE] [--runs N] [--phases]

The first start has an empty program cache; the later ones find the programs of the first. With `--against`, every run
of this checkout is followed by one of another checkout with the same arguments, so that other work on the machine
disturbs both alike. "Core" is CPU time summed over all cores, "to leave" the time from the output's last write to the
end of the process. `--phases` times the parts of a later start in one process. By default, the image is 768×512.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 768, 512

# Prints the wall-clock and CPU seconds of each phase of compressing an image and decompressing the file. Uses what
# earlier versions of the package have as well.
PHASES = """
import json, os, sys, time
rows, last = [], [float(os.environ["BENCHMARK_START"]), 0.0]
def done(name):
    now = time.time(), time.process_time()
    rows.append([name, now[0] - last[0], now[1] - last[1]])
    last[:] = time.time(), time.process_time()
done("Python")
import numpy as np, PIL.Image
done("import NumPy and Pillow")
import jax
done("import jax")
from cdc_jax.codec import codec
done("import cdc_jax.codec.codec")
try:
    from cdc_jax.runtime.programs import keep
except ImportError:
    from cdc_jax.runtime.compilation_cache import enable as keep
keep()
done("open the program cache")
opened = codec.load_codec(os.environ["BENCHMARK_MODEL"] or None)
done("load the model")
image = np.asarray(PIL.Image.open(sys.argv[1]).convert("RGB"))
done("read the image")
data = opened.compress(image)
done("compress")
opened.compress(image)
done("compress once more")
opened.decode_symbols(data)
done("entropy decoding")
opened.decompress(data)
done("decompress")
pixels = opened.decompress(data)
done("decompress once more")
from cdc_jax.io.images import encode_image
encode_image(pixels, "png", None)
done("encode as PNG")
print(json.dumps(rows))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--against", metavar="CHECKOUT", type=Path, help="another checkout of this repository")
    parser.add_argument("--model", metavar="BUNDLE", type=Path, help="default: the shipped model")
    parser.add_argument("--image", metavar="FILE", type=Path, help="default: a smooth one of 768×512")
    parser.add_argument("--runs", type=int, default=5, help="later starts (default: 5)")
    parser.add_argument("--phases", action="store_true", help="time the phases of a later start as well")
    args = parser.parse_args()
    checkouts = {"this": ROOT} if args.against is None else {"this": ROOT, "other": args.against.resolve()}
    with tempfile.TemporaryDirectory() as folder:
        image = args.image or _make_image(Path(folder) / "image.png")
        sides = {name: Path(folder) / name for name in checkouts}
        for side in sides.values():
            side.mkdir()
        _commands(checkouts, sides, image, args)
        if len(sides) == 2:
            _compare(*sides.values())
        if args.phases:
            _phases(checkouts, sides, image, args)


def _commands(checkouts: dict[str, Path], sides: dict[str, Path], image: Path, args: argparse.Namespace) -> None:
    first, later = {}, collections.defaultdict(list)
    for run in range(1 + args.runs):
        for name, root in checkouts.items():
            for command in ("compress", "decompress"):
                source, target = (
                    (image.resolve(), "a.cdc") if command == "compress" else (sides[name] / "a.cdc", "a.png")
                )
                words = [command, "--quiet", "--force", source, "-o", sides[name] / target]
                words += [] if args.model is None else ["--model", args.model.resolve()]
                figures = _run(["-m", "cdc_jax", *words], _environment(root, sides[name]), sides[name] / target)
                if run == 0:
                    first[command, name] = figures
                else:
                    later[command, name].append(figures)
    print(f"{'':24} {'first start':>17}   {'later starts: min, median':>31}   {'to leave':>9} {'peak':>6}")
    print(f"{'':24} {'s':>8} {'core s':>8}   {'s':>7} {'s':>7} {'core s':>7} {'core s':>7}   {'s':>9} {'MiB':>6}")
    for (command, name), (seconds, core, *_) in first.items():
        walls, cores, leaving, mib = zip(*later[command, name], strict=True)
        middle = [min(walls), statistics.median(walls), min(cores), statistics.median(cores)]
        shown = " ".join(f"{value:7.2f}" for value in middle)
        print(f"{command:12} {name:11} {seconds:8.2f} {core:8.2f}   {shown}   {min(leaving):9.2f} {max(mib):6.0f}")


def _run(words: list, environment: dict[str, str], target: Path) -> tuple[float, float, float, float]:
    """Wall-clock and CPU seconds of a process, seconds from its target's last write to its end, peak memory in MiB."""
    start = time.time()
    process = subprocess.Popen([sys.executable, *map(str, words)], env=environment, cwd=target.parent)
    _, status, usage = os.wait4(process.pid, 0)
    end = time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words[:3]} failed with exit code {process.returncode}.")
    mib = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return end - start, usage.ru_utime + usage.ru_stime, end - target.stat().st_mtime, mib


def _compare(this: Path, other: Path) -> None:
    same = (this / "a.cdc").read_bytes() == (other / "a.cdc").read_bytes()
    from PIL import Image

    pixels = [np.asarray(Image.open(side / "a.png")).astype(int) for side in (this, other)]
    difference = np.abs(pixels[0] - pixels[1]).max()
    print(f"files: {'the same' if same else 'different'}; pixels differ by {difference} of 255")


def _phases(checkouts: dict[str, Path], sides: dict[str, Path], image: Path, args: argparse.Namespace) -> None:
    rows = collections.defaultdict(list)
    for _ in range(args.runs):
        for name, root in checkouts.items():
            environment = {"BENCHMARK_MODEL": str(args.model.resolve() if args.model else "")}
            environment |= {**_environment(root, sides[name]), "BENCHMARK_START": repr(time.time())}
            command = [sys.executable, "-c", PHASES, str(image.resolve())]
            done = subprocess.run(command, env=environment, cwd=sides[name], capture_output=True, text=True, check=True)
            for phase, seconds, core in json.loads(done.stdout):
                rows[phase, name].append((seconds, core))
    print(f"\n{'phases of a later start, min':32}" + "".join(f"{name + ', s':>12}{'core s':>9}" for name in checkouts))
    for phase in dict.fromkeys(phase for phase, _ in rows):
        values = [min(column) for name in checkouts for column in zip(*rows[phase, name], strict=True)]
        print(f"{phase:32}" + "".join(f"{value:{9 if i % 2 else 12}.3f}" for i, value in enumerate(values)))


def _environment(root: Path, side: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")}
    return {**kept, "PYTHONPATH": str(root), "CDC_JAX_CACHE": str(side / "cache")}


def _make_image(path: Path) -> Path:
    from PIL import Image

    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 32, WIDTH // 32, 3), np.uint8)
    Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path)
    return path


if __name__ == "__main__":
    main()
