"""Speed of the data pipeline alone: images per second, for a folder of images and several numbers of workers.

  python benchmarks/data_pipeline.py [--path FOLDER] [--crop 256] [--batch-size 32] [--workers 0 1 2] [--seconds 10]

Without a folder, it reads the photographs that come with scikit-image, which the pipeline caches in memory; with
--decode they are read every time. Crops are counted after the first batch; the time until then (workers are processes
that import everything) has its own column. Files in the system's file cache are read fast, so compare a first run with
a second.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ml_collections  # noqa: E402

from cdc_jax.data import crops  # noqa: E402
from cdc_jax.data.pipeline import open_batches  # noqa: E402
from cdc_jax.data.sources import open_sources  # noqa: E402
from cdc_jax.errors import CdcError  # noqa: E402
from cdc_jax.training.config import default_config  # noqa: E402
from cdc_jax.training.config_checks import check_config  # noqa: E402


def pipeline_config(args: argparse.Namespace, workers: int) -> ml_collections.ConfigDict:
    """The settings of one row of the table."""
    config = default_config()
    config.data.update(
        {
            "source": "folder" if args.path else "scikit-image",
            "path": args.path or "",
            "crop": args.crop,
            "batch_size": args.batch_size,
            "flip": True,
            "workers": workers,
        }
    )
    check_config(config)
    return config


def measure(config: ml_collections.ConfigDict, seconds: float) -> tuple[float, float, dict[str, int]]:
    """(seconds to the first batch, crops per second after it, counters)."""
    start = time.perf_counter()
    with open_batches(config, process_index=0, process_count=1, first_step=0) as batches:
        next(batches)
        first = time.perf_counter()
        # Crops that were prefetched during start-up are not counted.
        for _ in range(4):
            next(batches)
        begin, done = time.perf_counter(), 0
        while time.perf_counter() < begin + seconds:
            next(batches)
            done += 1
        rate = done * config.data.batch_size / (time.perf_counter() - begin)
        return first - start, rate, batches.counters()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--path", metavar="FOLDER", help="images (default: scikit-image's photographs)")
    parser.add_argument("--crop", type=int, default=256, help="side in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="0: threads of one process")
    parser.add_argument("--seconds", type=float, default=10.0, help="that each number of workers is measured for")
    parser.add_argument("--decode", action="store_true", help="keep no decoded images in memory (threads only)")
    args = parser.parse_args()
    if args.decode:
        crops.CACHED_RECORDS = 0
        args.workers = [0]
    try:
        records = len(open_sources(pipeline_config(args, 0)).training)
        print(
            f"{records} images, {args.path or 'scikit-image'}; crops of {args.crop}×{args.crop}, "
            f"batches of {args.batch_size}, {os.cpu_count()} cores"
        )
        print(f"\n{'workers':>10} {'first batch, s':>15} {'images/s':>10} {'skipped':>8}")
        for workers in args.workers:
            first_seconds, rate, counters = measure(pipeline_config(args, workers), args.seconds)
            skipped = counters["corrupt"] + counters["small"]
            print(f"{workers or 'threads':>10} {first_seconds:15.1f} {rate:10.1f} {skipped:8}", flush=True)
    except CdcError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
