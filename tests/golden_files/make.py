"""Makes the golden files of a format version: a bundle, files, and the symbols they hold.

  python -m tests.golden_files.make v2        from the repository's root

Run it once for a new format version, when that is about to be released, and never again: the files of a version are
what every later program must read, so they are made by the program that defines it. An existing folder is kept.

  v1/bundle.zip     the model: random weights, width 1; in v2 a compact variable-rate model, in float16
  v1/NAME.cdc       files
  v1/symbols.npz    NAME.z, NAME.y, NAME.mean, NAME.scale_index of each, as the encoder had them; in v2 NAME.y_hat, too
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from cdc_jax import load_codec
from cdc_jax.codec.bundle import save_bundle
from cdc_jax.codec.codec import Codec
from cdc_jax.entropy.coder import MAX_ABS_SYMBOL, EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from tests.helpers.compact import compact_config

FOLDER = Path(__file__).parent
CONFIGS = {
    "v1": ModelConfig(width=1, decode_steps=2),
    "v2": compact_config((4, 4, 6), hyper_channels=4, hyper_width=5),
}
QUALITIES = {"pixel": 37.25, "odd_size": 100, "noise": 0, "checkerboard": 62.5}  # of v2
_ESCAPES_LEVEL = 9536  # quality 37.25
_CHUNKS = (Chunk(b"test", bytes(range(200))), Chunk(b"Abc1", b""))
_FACTORS = {
    "v1": {
        "encoder.downs.3": 5.0,
        "hyper_encoder.convs.2": 40.0,
        **{f"hyper_decoder.convs.{i}": 4.0 for i in range(3)},
    },
    "v2": {
        "encoder.out": 20.0,
        "hyper_encoder.convs.2": 4.0,
        **{f"hyper_decoder.convs.{i}": 3.0 for i in range(3)},
        "checkerboard.out": 4.0,
    },
}


def _weights(version: str) -> dict[str, np.ndarray]:
    """Initial weights of large latents and of scales all over the tables, in few steps: so they pack well."""
    config = CONFIGS[version]
    weights = initial_weights(config, 0)
    for name, array in weights.items():
        module = name.removeprefix("compressor.").rsplit(".", 1)[0]
        array = array * _FACTORS[version].get(module, 1.0)
        step = 2.0**-6 if version == "v1" else 2.0 ** (np.frexp(max(np.abs(array).max(), 2.0**-20))[1] - 5)
        weights[name] = (np.rint(array / step) * step).astype(np.float32)
    medians = np.array([0.25, -0.5, 0.0, 1.75], np.float32)
    weights["compressor.prior.medians"] += medians
    if version == "v1":
        weights["compressor.hyper_decoder.convs.2.bias"][config.latent_channels :] += np.float32(2.0)
    else:
        weights["compressor.transform.log2_gain"] += np.float32(3.0)
    return weights


def _images() -> dict[str, np.ndarray]:
    """One pixel, an odd size, more than one cell of z, colors that clip."""
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
    y = np.resize([0, 1, -1, 0, 2], (8, 8, model.latent_channels)).astype(np.int32)
    y.reshape(-1)[7 : 7 + 4 * len(outside) : 2] = np.stack([outside, -outside], axis=1).reshape(-1)
    return z, y


def _files(version: str, codec: Codec, model: CodingModel) -> dict[str, bytes]:
    """The files of the images; in v2 one of them a second time, with chunks."""
    if version == "v1":
        return {name: codec.compress(image) for name, image in _images().items()}
    files = {name: codec.compress(image, quality=QUALITIES[name]) for name, image in _images().items()}
    header = cdc_file.unpack(files["odd_size"])
    fields = header.fingerprint, header.height, header.width, header.stream
    return {**files, "chunks": cdc_file.pack(*fields, level=header.level, chunks=_CHUNKS)}


def make(version: str, folder: Path) -> None:
    """Fills the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary, "bundle")
        provenance = "Random weights: golden files of the file format."
        save_bundle(bundle, CONFIGS[version], _weights(version), provenance=provenance, half=version != "v1")
        codec, model = load_codec(bundle), CodingModel.load(bundle / "coding.npz")
        folder.mkdir()
        with zipfile.ZipFile(folder / "bundle.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(bundle.rglob("*")):
                if path.is_file() and path.name != "commit_success.txt":  # that one holds the temporary path
                    archive.write(path, path.relative_to(bundle))
    files = _files(version, codec, model)
    symbols = {name: codec.read_symbols(data) for name, data in files.items()}
    z, y = symbols["escapes"] = _escapes(model)
    level = None if version == "v1" else _ESCAPES_LEVEL
    scale_index = model.latents.code(z, level or 0, lambda _: y).scale_index
    stream = EntropyCoder(model).encode(z, y, scale_index)
    files["escapes"] = cdc_file.pack(model.fingerprint, 100, 128, stream, level=level)
    arrays = {}
    for name, data in files.items():
        z, y = symbols[name]
        coded = model.latents.code(z, cdc_file.unpack(data).level, lambda _, y=y: y)
        arrays |= {f"{name}.z": z, f"{name}.y": y}
        arrays |= {f"{name}.mean": coded.mean, f"{name}.scale_index": coded.scale_index}
        if version != "v1":
            arrays[f"{name}.y_hat"] = coded.y_hat
        (folder / f"{name}.cdc").write_bytes(data)
    np.savez_compressed(folder / "symbols.npz", **arrays)


if __name__ == "__main__":
    [wanted] = sys.argv[1:]
    target = FOLDER / wanted
    if target.exists():
        sys.exit(f"{target} exists already: golden files are made once for a format version, and never changed")
    make(wanted, target)
