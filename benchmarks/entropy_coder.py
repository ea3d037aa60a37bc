"""Speed of entropy coding on one core: symbols per second of the coder, and the time of the integer networks.

  python benchmarks/entropy_coder.py [--model BUNDLE] [--width 768 --height 512] [--repeats 20]

Without a bundle, it uses random weights of the released models' size (256 channels). y is drawn from the tables that
the hyper decoder chooses. Coding includes all bookkeeping (grouping by scale, table entries, escapes, the tail);
decoding also includes the second encoding, which checks the file. The networks are timed separately. JAX is not used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# Before NumPy is imported: BLAS and everything else on one core, where the system allows it.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cdc_jax.entropy.coder import EntropyCoder  # noqa: E402
from cdc_jax.entropy.coding_model import CodingModel  # noqa: E402
from cdc_jax.entropy.latents import LatentModel, Latents, Pass  # noqa: E402
from cdc_jax.entropy.tables import draw_symbols  # noqa: E402

RELEASED_CHANNELS = 256
LEVEL = 12800  # quality 50, in a variable-rate model
GAIN = 3.0  # spreads the random model's scales over the tables, at about 1 bit per pixel


def random_model(channels: int) -> CodingModel:
    """The coding model of random weights, the same on every machine, as in the tests."""
    from tests.helpers.coding_weights import coding_weights

    return CodingModel.build(*coding_weights(channels, gain=GAIN))


def draw_image(model: CodingModel, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(z, y, scale indices) of an image of this many pixels, from the model's own distributions."""
    rows, columns = -(-height // 64), -(-width // 64)
    z = draw_symbols(model.z_tables, rows * columns).reshape(rows, columns, model.channels)
    random = np.random.default_rng(0)

    def draw(step: Pass) -> np.ndarray:
        return np.rint(random.normal(size=step.scale_index.shape) * model.scales[step.scale_index]).astype(np.int32)

    coded = model.latents.code(z, LEVEL, draw)
    return z, coded.symbols, coded.scale_index


def best_seconds(function: Callable[[], object], repeats: int) -> float:
    """The time of the fastest call, which other programs disturb least."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(model: CodingModel, height: int, width: int, repeats: int) -> list[tuple[str, float, float]]:
    """Rows of the table: (name, seconds, symbols per second, or 0 if that has no meaning)."""
    z, y, scale_index = draw_image(model, height, width)

    class Remembering(LatentModel):
        """Knows the scales already, so that the coder is timed without the networks."""

        def code(self, _, __, symbols_of):
            passes = self.passes(*scale_index.shape[:2])
            parts = [symbols_of(Pass(None, None, scale_index, positions)) for positions in passes]
            symbols = parts[0] if len(parts) == 1 else np.where(passes[0][..., None], *parts)
            return Latents(symbols, None, None, scale_index)

    start = time.perf_counter()
    latents = model.latents
    coder = EntropyCoder(
        replace(model, latents=Remembering(latents.hyper_decoder, latents.gains, latents.checkerboard))
    )
    building_seconds = time.perf_counter() - start
    stream = coder.encode(z, y, scale_index)
    decoded = coder.decode(stream, z.shape, LEVEL)
    if not (np.array_equal(decoded.z, z) and np.array_equal(decoded.y, y)):
        raise RuntimeError("The symbols read are not those written.")
    symbols = z.size + y.size
    print(
        f"{width}×{height} pixels: z {z.shape}, y {y.shape}, {symbols} symbols, {len(stream)} bytes, "
        f"{8 * len(stream) / (height * width):.2f} bpp, {np.unique(scale_index).size} scale indices"
    )
    encode_seconds = best_seconds(lambda: coder.encode(z, y, scale_index), repeats)
    decode_seconds = best_seconds(lambda: coder.decode(stream, z.shape), repeats)
    return [
        ("build the coder, once per bundle", building_seconds, 0.0),
        ("encode", encode_seconds, symbols / encode_seconds),
        ("decode, with its check", decode_seconds, symbols / decode_seconds),
        ("integer networks", best_seconds(lambda: latents.code(z, LEVEL, lambda _: y), max(2, repeats // 4)), 0.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", metavar="BUNDLE", type=Path, help="a bundle's folder (default: random weights)")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    model = CodingModel.load(args.model / "coding.npz") if args.model else random_model(RELEASED_CHANNELS)
    rows = measure(model, args.height, args.width, args.repeats)
    print(f"\n{'one core':34} {'ms':>8} {'M symbols/s':>12}")
    for what, seconds, rate in rows:
        print(f"{what:34} {1e3 * seconds:8.1f} " + (f"{rate / 1e6:12.1f}" if rate else ""))


if __name__ == "__main__":
    main()
