"""Makes the golden files of a format version: a bundle, files, and the symbols they hold.

  python -m tests.golden_files.make        from the repository's root

Run it once for a new format version, when that is about to be released, and never again: the files of a version are
what every later program must read, so they are made by the program that defines it. An existing folder is kept.

  v1/bundle.zip     the model: random weights, width 1
  v1/NAME.cdc       files
  v1/symbols.npz    NAME.z, NAME.y, NAME.mean, NAME.scale_index of each, as the encoder had them
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from cdc_jax import load_codec
from cdc_jax.codec.bundle import save_bundle
from cdc_jax.entropy.coder import MAX_ABS_SYMBOL, EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.io import cdc_file
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights

FOLDER = Path(__file__).parent
CONFIG = ModelConfig(width=1, decode_steps=2)
_GAINS = {"encoder.downs.3": 5.0, "hyper_encoder.convs.2": 40.0, **{f"hyper_decoder.convs.{i}": 4.0 for i in range(3)}}


def _weights() -> dict[str, np.ndarray]:
    """Initial weights of large latents and of scales all over the tables, in steps of 1/64: so they pack well."""
    weights = initial_weights(CONFIG, 0)
    for name, array in weights.items():
        module = name.removeprefix("compressor.").rsplit(".", 1)[0]
        weights[name] = (np.rint(array * _GAINS.get(module, 1.0) * 64) / 64).astype(np.float32)
    weights["compressor.hyper_decoder.convs.2.bias"][CONFIG.latent_channels :] += np.float32(2.0)
    weights["compressor.prior.medians"] += np.array([0.25, -0.5, 0.0, 1.75], np.float32)
    return weights


def _images() -> dict[str, np.ndarray]:
    """One pixel, an odd size, more than one cell of z, colours that clip."""
    rng = np.random.default_rng(1)
    row, column = np.mgrid[:37, :53]
    smooth = np.stack([row * 5, column * 4, 255 - row * 3 - column], axis=-1)
    return {
        "pixel": np.full((1, 1, 3), (200, 30, 90), np.uint8),
        "odd_size": smooth.astype(np.uint8),
        "noise": rng.integers(0, 256, (70, 130, 3), dtype=np.uint8),
        "checkerboard": np.repeat(np.indices((64, 64)).sum(0)[:, :, None] % 2 * 255, 3, axis=2).astype(np.uint8),
    }


def _escapes(model: CodingModel) -> tuple[np.ndarray, np.ndarray]:
    """Symbols outside their tables, excesses of every length on both sides, among ordinary ones."""
    powers = 1 << np.arange(24)
    outside = np.minimum(np.concatenate([powers, powers + powers // 3]), MAX_ABS_SYMBOL)
    z = np.zeros((2, 2, model.channels), np.int32)
    z.reshape(-1)[:9] = [-MAX_ABS_SYMBOL, 300, -1, 128, 0, 4000, -70_000, 5, MAX_ABS_SYMBOL]
    y = np.resize([0, 1, -1, 0, 2], (8, 8, model.channels)).astype(np.int32)
    y.reshape(-1)[7 : 7 + 4 * len(outside) : 2] = np.stack([outside, -outside], axis=1).reshape(-1)
    return z, y


def make(folder: Path) -> None:
    """Fills the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary, "bundle")
        save_bundle(bundle, CONFIG, _weights(), provenance="Random weights: golden files of the file format.")
        codec, model = load_codec(bundle), CodingModel.load(bundle / "coding.npz")
        folder.mkdir()
        with zipfile.ZipFile(folder / "bundle.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(bundle.rglob("*")):
                if path.is_file() and path.name != "commit_success.txt":  # that one holds the temporary path
                    archive.write(path, path.relative_to(bundle))
    files = {name: codec.compress(image) for name, image in _images().items()}
    z, y = _escapes(model)
    stream = EntropyCoder(model).encode(z, y, model.hyper_decoder.decode(z)[1])
    files["escapes"] = cdc_file.pack(model.fingerprint, 100, 128, stream)
    symbols = {"escapes": (z, y)}
    arrays = {}
    for name, data in files.items():
        z, y = symbols.get(name) or codec.read_symbols(data)
        mean, scale_index = model.hyper_decoder.decode(z)
        arrays |= {f"{name}.z": z, f"{name}.y": y, f"{name}.mean": mean, f"{name}.scale_index": scale_index}
        (folder / f"{name}.cdc").write_bytes(data)
    np.savez_compressed(folder / "symbols.npz", **arrays)


if __name__ == "__main__":
    target = FOLDER / f"v{cdc_file.VERSION}"
    if target.exists():
        sys.exit(f"{target} exists already: golden files are made once for a format version, and never changed")
    make(target)
