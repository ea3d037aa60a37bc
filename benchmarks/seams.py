"""Whether the seams between tiles are visible: squared error against the original where tiles overlap, and elsewhere.

  python benchmarks/seams.py IMAGE... --model BUNDLE [--steps 1] [--tile 384 512] [--overlap 128]

Errors are divided by those of decoding the whole image, at the same pixels, so that the image's content cancels. The
benchmark prints the mean over images and its standard error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from cdc_jax import load_codec  # noqa: E402
from cdc_jax.codec.decoding import sample  # noqa: E402
from cdc_jax.codec.image_decoder import y_hat as latents_of  # noqa: E402
from cdc_jax.codec.tiled_decoding import sample_in_tiles  # noqa: E402
from cdc_jax.codec.tiling import OVERLAP, Axis  # noqa: E402
from cdc_jax.io.images import pad_to_multiple, read_image  # noqa: E402
from cdc_jax.io.pixels import to_unit_range  # noqa: E402
from cdc_jax.models.config import STRIDE  # noqa: E402
from cdc_jax.runtime.sharding import make_mesh  # noqa: E402

_EDGE = 8  # pixels on either side of where a tile's weight becomes positive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--gamma", type=float, default=0.0)
    parser.add_argument("--tile", type=int, nargs="+", default=[384])
    parser.add_argument("--overlap", type=int, nargs="+", default=[OVERLAP])
    args = parser.parse_args()
    codec = load_codec(args.model)
    print(f"{len(args.images)} images, {args.steps} steps; error ÷ that of decoding whole")
    ratios_by_setting = {(tile, overlap): [] for tile in args.tile for overlap in args.overlap}
    for path in args.images:
        for setting, ratios in ratios_of(codec, path, ratios_by_setting, args.steps, args.gamma).items():
            ratios_by_setting[setting].append(ratios)
    print(f"{'tile':>5} {'overlap':>8} {'overlapping':>14} {'elsewhere':>16} {'first ÷ second':>17} {'at edges':>16}")
    for (tile, overlap), ratios in ratios_by_setting.items():
        overlapping, elsewhere, edges = np.array(ratios).T
        columns = [_summary(values) for values in (overlapping, elsewhere, overlapping / elsewhere, edges)]
        print(f"{tile:>5} {overlap:>8} " + " ".join(f"{column:>16}" for column in columns), flush=True)


def ratios_of(codec, path: Path, settings, steps: int, gamma: float) -> dict:
    """By (tile, overlap): error ratios where tiles overlap, elsewhere, and where a tile's weight becomes positive."""
    original = read_image(path)
    y_hat = latents_of(codec._reader.read(codec.compress(original))[1])
    size = original.shape[:2]
    original = np.asarray(to_unit_range(pad_to_multiple(original, STRIDE)))
    whole = jax.jit(sample, static_argnums=(0, 1, 2))
    scalars = np.uint32(0), np.float32(gamma), np.float32(0)
    expected = np.asarray(whole(codec.config, steps, False, codec.params, y_hat[None], *scalars)[0])
    whole_error = _error(expected, original)
    print(f"{path.name}: whole {10 * np.log10(4 / whole_error[: size[0], : size[1]].mean()):.2f} dB", flush=True)
    mesh = make_mesh(jax.local_devices()[:1])
    ratios_by_setting = {}
    for tile, overlap in settings:
        options = {"steps": steps, "seed": 0, "gamma": gamma, "eta": 0.0, "tile": tile, "overlap": overlap}
        error = _error(sample_in_tiles(codec.config, codec.params, mesh, y_hat, **options), original)
        parts = _overlapping(error.shape, tile, overlap)
        ratios = []
        for part in (parts[0], ~parts[0], parts[1]):
            part = part[: size[0], : size[1]]
            inside = np.zeros(error.shape, bool)
            inside[: size[0], : size[1]] = part
            ratios.append(error[inside].mean() / whole_error[inside].mean())
        ratios_by_setting[tile, overlap] = ratios
    return ratios_by_setting


def _error(decoded, original):
    return ((np.clip(decoded, -1, 1) - original) ** 2).mean(-1)


def _overlapping(shape: tuple[int, int], tile: int, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the pixels of several tiles, and of those next to a tile's first or last pixel with positive weight."""
    overlapping, edges = np.zeros(shape, bool), np.zeros(shape, bool)
    for axis, length in enumerate(shape):
        axis = Axis(length, tile, overlap)
        marked, beside = np.moveaxis(overlapping, axis, 0), np.moveaxis(edges, axis, 0)
        for before, after in zip(axis.spans, axis.spans[1:], strict=False):
            marked[after[0] : before[1]] = True
        for (start, _), weight in zip(axis.spans, axis.weights, strict=True):
            counting = np.flatnonzero(weight)
            for position in (start + counting[0], start + counting[-1] + 1):
                if 0 < position < length:
                    beside[max(position - _EDGE, 0) : position + _EDGE] = True
    return overlapping, edges


def _summary(values: np.ndarray) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
    return f"{values.mean():.4f} ± {error:.4f}"


if __name__ == "__main__":
    main()
