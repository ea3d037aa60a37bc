"""The effect of bfloat16 in the U-Net: PSNR of images decoded with it, against the same images decoded in float32.

python benchmarks/bfloat16.py IMAGE... --model BUNDLE [--steps 1 5]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cdc_jax import load_codec  # noqa: E402
from cdc_jax.io.images import read_image  # noqa: E402
from cdc_jax.metrics.distortion import psnr_db  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5])
    args = parser.parse_args()
    exact, half = load_codec(args.model), load_codec(args.model, compute_type="bfloat16")
    originals = [read_image(path) for path in args.images]
    files = [exact.compress(image) for image in originals]
    print(f"{len(files)} images; dB, mean and least")
    for steps in args.steps:
        pairs = [(exact.decompress(data, steps=steps), half.decompress(data, steps=steps)) for data in files]
        between = [float(psnr_db(b, a)) for a, b in pairs]
        lost = [float(psnr_db(a, o) - psnr_db(b, o)) for (a, b), o in zip(pairs, originals, strict=True)]
        print(
            f"{steps} steps: {np.mean(between):.1f} ({min(between):.1f}) between the two; against the originals "
            f"bfloat16 loses {np.mean(lost):+.3f} ({max(lost):+.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
