"""Runs on a machine of `tests.helpers.machines`: compresses images or reads files, and reports their symbols.

  python -m tests.crossplatform.worker encode BUNDLES IMAGES.npz EVERY OUT   writes OUT/<bundle>/<image>.cdc
  python -m tests.crossplatform.worker read BUNDLES FILES…                   with the entropy coder: NumPy, no JAX
  python -m tests.crossplatform.worker open BUNDLES FILES…                   with Codec.read_symbols
  python -m tests.crossplatform.worker build WEIGHTS.npz… OUT                writes OUT/<name>.npz, a coding.npz

The last line of its output is JSON: {"machine": a description, "files": {file: {array: SHA-256}}}. With EVERY = 1 each
bundle codes all images; with EVERY = 4, each bundle codes another quarter of them. Variable-rate models cycle through
the qualities.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.integer_checkerboard import IntegerCheckerboard
from cdc_jax.entropy.integer_hyper_decoder import IntegerHyperDecoder
from cdc_jax.entropy.latents import LatentModel
from cdc_jax.io import cdc_file
from tests.helpers.machines import SUMMATION
from tests.helpers.summation import ShuffledCheckerboard, ShuffledSums

QUALITIES = (0, 100, 37.25, 0.004, 99.996, 50, 10.5)
ARRAYS = ("z", "y", "mean", "scale_index", "y_hat")
_LAST: dict[str, np.ndarray] = {}  # the arrays of the current image


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


def _keep_arrays() -> None:
    """Records the entropy coder's inputs and the networks' outputs while a codec works."""
    code, encode = LatentModel.code, EntropyCoder.encode

    def keeping_code(self, z, level, symbols_of):
        latents = code(self, z, level, symbols_of)
        _LAST.update(z=z, y=latents.symbols, mean=latents.mean)
        _LAST.update(scale_index=latents.scale_index, y_hat=latents.y_hat)
        return latents

    def keeping_encode(self, z, y, scale_index):
        given = {"z": z, "y": y, "scale_index": scale_index}
        if any(_LAST[name] is not array for name, array in given.items()):
            raise AssertionError("the encoder coded other arrays than the latents' passes gave")
        return encode(self, z, y, scale_index)

    LatentModel.code, EntropyCoder.encode = keeping_code, keeping_encode


def _digests() -> dict[str, str]:
    found = {name: _digest(_LAST[name]) for name in ARRAYS}
    _LAST.clear()
    return found


def _bundles(folder: str) -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if path.is_dir())


def _encode(bundles: str, archive: str, every: str, out: str) -> Iterator[tuple[str, dict[str, str]]]:
    from cdc_jax import load_codec

    with np.load(archive) as arrays:
        images = {name: arrays[name] for name in arrays.files}
    for number, bundle in enumerate(_bundles(bundles)):
        codec = load_codec(bundle)
        folder = Path(out, bundle.name)
        folder.mkdir(parents=True)
        for i, (name, image) in enumerate(images.items()):
            if i % int(every) == number % int(every):
                file = folder / f"{name}.cdc"
                quality = QUALITIES[i // int(every) % len(QUALITIES)] if codec.config.variable_rate else None
                file.write_bytes(codec.compress(image, quality=quality))
                yield str(file), _digests()


def _files(folders: tuple[str, ...], bundle: Path) -> list[Path]:
    return [file for folder in folders for file in sorted(Path(folder, bundle.name).glob("*.cdc"))]


def _read(bundles: str, *folders: str) -> Iterator[tuple[str, dict[str, str]]]:
    for bundle in _bundles(bundles):
        model = CodingModel.load(bundle / "coding.npz")
        coder = EntropyCoder(model)
        for file in _files(folders, bundle):
            container = cdc_file.unpack(file.read_bytes())
            if container.fingerprint != model.fingerprint:
                raise AssertionError(f"{file} has another fingerprint than its bundle")
            cells = -(-container.height // 64), -(-container.width // 64), model.channels
            symbols = coder.decode(container.stream, cells, container.level)
            _LAST.update({name: getattr(symbols, name) for name in ARRAYS})
            yield str(file), _digests()
    if "jax" in sys.modules:
        raise AssertionError("the coding side imported JAX")


def _open(bundles: str, *folders: str) -> Iterator[tuple[str, dict[str, str]]]:
    from cdc_jax import load_codec

    for bundle in _bundles(bundles):
        codec = load_codec(bundle)
        for file in _files(folders, bundle):
            z, y = codec.read_symbols(file.read_bytes())  # its networks' arrays have been kept on the way
            _LAST.update(z=z, y=y)
            yield str(file), _digests()


def _build(*arguments: str) -> Iterator[tuple[str, dict[str, str]]]:
    *archives, out = arguments
    for archive in map(Path, archives):
        with np.load(archive) as arrays:
            model = _whole_model(arrays) if "compressor.prior.medians" in arrays else _coding_side(arrays)
        file = Path(out, archive.name)
        model.save(file)
        yield archive.stem, {"coding.npz": hashlib.sha256(file.read_bytes()).hexdigest()}


def _coding_side(arrays) -> CodingModel:
    counts = {"weights": 4, "biases": 4, "gains": 3}
    prior = {kind: [arrays[f"{kind}_{k}"] for k in range(count)] for kind, count in counts.items()}
    layers = [(arrays[f"kernel_{k}"], arrays[f"bias_{k}"]) for k in range(3)]
    return CodingModel.build({**prior, "medians": arrays["medians"]}, layers)


def _whole_model(arrays) -> CodingModel:
    """The coding model of a model's weights by name, as in an export."""
    from cdc_jax.models.params import build_coding

    return build_coding({name: arrays[name] for name in arrays.files})


def _machine() -> dict[str, object]:
    x = np.linspace(-20, 20, 20001)
    facts = {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "np.exp": _digest(np.exp(x)) + _digest(np.exp(x.astype(np.float32))),
        "shuffled": IntegerHyperDecoder.matmul is ShuffledSums.matmul
        and IntegerCheckerboard.matmul is ShuffledCheckerboard.matmul,
    }
    jax = sys.modules.get("jax")
    if jax is not None:
        facts |= {
            "jax": jax.__version__,
            "devices": jax.local_device_count(),
            "x64": bool(jax.config.jax_enable_x64),
            "precision": jax.config.jax_default_matmul_precision,
            "jax.exp": _digest(np.asarray(jax.jit(jax.numpy.exp)(x.astype(np.float32)))),
        }
    return facts


def main(task: str, *arguments: str) -> None:
    if os.environ.get(SUMMATION) == "shuffled":
        IntegerHyperDecoder.matmul, IntegerCheckerboard.matmul = ShuffledSums.matmul, ShuffledCheckerboard.matmul
    _keep_arrays()
    files = dict({"encode": _encode, "read": _read, "open": _open, "build": _build}[task](*arguments))
    print(json.dumps({"machine": _machine(), "files": files}))


if __name__ == "__main__":
    main(*sys.argv[1:])
