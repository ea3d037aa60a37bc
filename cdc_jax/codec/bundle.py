"""A bundle is a folder with everything that inference needs.

    weights/        all weights, written by orbax; or weights.safetensors, in float16 (`bundle_weights`)
    coding.npz      the tables and integer networks that the file format depends on (`entropy.coding_model`)
    config.json     the model's settings, its fingerprint, the hash of its weights
    model_card.md   data, license, provenance, measurements
    *.stablehlo     the networks as programs, if requested (`serving`)

It contains no pickles. Bundles with the same fingerprint open each other's files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Array

from cdc_jax.codec.bundle_folder import (
    CARD_FILE,
    check_new_bundle,
    exists_already,
    new_bundle,
    refuse_other_folders,
)
from cdc_jax.codec.bundle_weights import load_weights, round_to_half, save_half, save_orbax
from cdc_jax.codec.serving import Serving
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import BundleError, ConfigError, reason_of
from cdc_jax.io.limited_reads import read_limited
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import Params, build_coding
from cdc_jax.version import __version__

BUNDLE_VERSION = 1
MAX_WEIGHT = 1e9  # in magnitude: up to it, no sum of squares in a network of this size overflows float32
_MAX_CONFIG_BYTES = 1 << 16
_CALIBRATION_SIDE = 8  # the model card counts saturations for 8×8 random symbols z


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
      config: the model's settings.
      params: float32 weights by dotted name.
      coding: the tables and integer networks that encoder and decoder share.
      weights_sha256: SHA-256 of all weights, as hexadecimal digits.
      path: absolute path of the folder it was loaded from, or None.
    """

    config: ModelConfig
    params: Params
    coding: CodingModel
    weights_sha256: str
    path: Path | None = None


def weights_hash(params: Mapping[str, Array]) -> str:
    """SHA-256 of every weight's name, shape and float32 bytes, in the order of the names, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(params):
        array = np.ascontiguousarray(np.asarray(params[name]), "<f4")
        digest.update(f"{name}:{array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def check_weights(params: Mapping[str, Array], hint: str) -> None:
    """Raises BundleError, which ends with the hint, if a weight is not finite or is beyond ±`MAX_WEIGHT`.

    Such a weight may not show in a network's output: activation functions can turn NaN into zero.
    """
    for name, value in params.items():
        array = np.asarray(value)
        if array.size and not (array.max() <= MAX_WEIGHT and array.min() >= -MAX_WEIGHT):
            raise BundleError(f"The weight {name} has values that are not finite or beyond ±{MAX_WEIGHT:g}: {hint}.")


def save_bundle(
    out_dir: str | Path,
    config: ModelConfig,
    params: Mapping[str, Array],
    *,
    provenance: str,
    measurements: Mapping[str, float | str] | None = None,
    coding: CodingModel | None = None,
    lpips: Mapping[str, np.ndarray] | None = None,
    half: bool = False,
    serving: Serving | None = None,
    license: str = "other",
    overwrite: bool = False,
) -> None:
    """Writes a bundle, completely or not at all.

    Args:
      out_dir: the bundle's folder; its parent folder is created if it is missing. A bundle at
        hf://OWNER/REPO[@BRANCH][/SUBFOLDER] is uploaded, with its model card as README.md.
      config, params: the model's settings and weights by dotted name.
      provenance: text for the model card: the origin and license of the weights.
      measurements: rows of the model card's table, by title.
      coding: the coding model of a bundle whose files this one must open; by default built from the weights.
      lpips: a perceptual network that came with the weights, stored as `lpips_vgg.npz`.
      half: store float16 weights, which halves the size. `coding` is then built from the rounded weights.
      serving: which programs to add for serving without this package; None adds none.
      license: the identifier of the weights' license, for the hub's metadata.
      overwrite: replace an existing bundle.

    Raises:
      BundleError: `out_dir` exists (with `overwrite`, if it is not a bundle) or cannot be written, the weights cannot
        be stored in a bundle, or the hub cannot be used.
    """
    check_new_bundle(out_dir, overwrite=overwrite)
    if serving is not None:
        serving.check()
    params = round_to_half(params) if half else params
    check_weights(params, "the training has diverged, or the weights are corrupt")
    coding = coding or build_coding(params)
    try:
        with new_bundle(out_dir, license=license, overwrite=overwrite) as folder:
            (save_half if half else save_orbax)(folder, params)
            coding.save(folder / "coding.npz")
            facts = _facts(config, coding, params)
            (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n")
            (folder / CARD_FILE).write_text(_model_card(facts, coding, provenance, measurements or {}), "utf-8")
            if serving is not None:
                serving.save(folder, config, params)
            if lpips:
                np.savez(folder / "lpips_vgg.npz", **lpips)
    except FileExistsError as error:  # another process has created it since the check
        raise BundleError(exists_already(out_dir)) from error
    except OSError as error:
        raise BundleError(f"Cannot write the bundle {out_dir}: {reason_of(error)}.") from error


def _facts(config: ModelConfig, coding: CodingModel, params: Mapping[str, Array]) -> dict[str, object]:
    """The content of config.json."""
    return {
        "bundle_version": BUNDLE_VERSION,
        "cdc_jax_version": __version__,
        "model": config.to_dict(),
        "fingerprint": coding.fingerprint.hex(),
        "weights_sha256": weights_hash(params),
    }


def load_bundle(path: str | Path) -> Bundle:
    """Reads a bundle.

    Raises:
      BundleError: the bundle is missing, incomplete, corrupt, or from a newer version; the message names the part.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"{path} is not a bundle: there is no such folder.")
    refuse_other_folders(path)
    facts = _read_facts(path / "config.json")
    config = _model_config(facts, path)
    coding = CodingModel.load(path / "coding.npz")
    channels, wanted = (coding.channels, coding.latent_channels), (config.hyper_channels, config.latent_channels)
    if channels != wanted or coding.format_version != config.format_version:
        raise BundleError(
            f"{path}: coding.npz has {channels} channels of z and y, the model has {wanted}: export the bundle again."
        )
    gains, board = coding.latents.gains, coding.latents.checkerboard
    if (board is not None) != config.checkerboard or (gains and len(gains.anchors) != config.rate_anchors):
        raise BundleError(f"{path}: coding.npz does not belong to the model of config.json: export the bundle again.")
    if coding.fingerprint.hex() != facts["fingerprint"]:
        raise BundleError(
            f"{path}: coding.npz is not the one that config.json was written with: copy or export the bundle again."
        )
    params = load_weights(path, config)
    try:
        _check_hash(params, facts["weights_sha256"])
        check_weights(params, "export the bundle again")
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    return Bundle(config, params, coding, facts["weights_sha256"], path.absolute())


def _check_hash(params: Params, expected_sha256: str) -> None:
    found = weights_hash(params)
    if found != expected_sha256:
        shown = ascii(expected_sha256[:16])[1:-1]
        raise BundleError(
            f"The weights have the hash {found[:16]}…, but config.json has {shown}…: copy or export the bundle again."
        )


def read_model_config(path: Path) -> ModelConfig:
    """The settings of a bundle's model, without its weights. Raises BundleError as `load_bundle`."""
    return _model_config(_read_facts(path / "config.json"), path)


def _model_config(facts: Mapping, path: Path) -> ModelConfig:
    try:
        return ModelConfig.from_dict(facts["model"])
    except (ConfigError, TypeError) as error:
        raise BundleError(f"{path / 'config.json'} does not describe a model: {reason_of(error)}.") from error


def _read_facts(path: Path) -> dict:
    try:
        facts = json.loads(read_limited(path, _MAX_CONFIG_BYTES))
    except OSError as error:
        raise BundleError(f"{path.parent} is not a bundle: {path.name} cannot be read ({reason_of(error)}).") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is corrupt ({reason_of(error)}): copy or export the bundle again.") from error
    if not isinstance(facts, dict) or type(facts.get("bundle_version")) is not int:
        raise BundleError(f"{path} is not a bundle's: it has no bundle_version.")
    if facts["bundle_version"] > BUNDLE_VERSION:
        raise BundleError(f"{path.parent} was written by a newer version: upgrade cdc_jax.")
    for key, kind in (("model", dict), ("fingerprint", str), ("weights_sha256", str)):
        if not isinstance(facts.get(key), kind):
            raise BundleError(f"{path} is incomplete: it lacks {key!r}.")
    return facts


def _model_card(facts: Mapping, coding: CodingModel, provenance: str, measurements: Mapping[str, float | str]) -> str:
    model = facts["model"]
    random = np.random.default_rng(0)
    shape = (_CALIBRATION_SIDE, _CALIBRATION_SIDE, coding.channels)
    saturations = coding.hyper_decoder.count_saturations(random.integers(-127, 128, shape).astype(np.int32))
    lines = [
        f"# CDC model, {model['prediction']}-prediction, width {model['width']}",
        "",
        provenance,
        "",
        "| what | value |",
        "|---|---|",
        f"| fingerprint | `{facts['fingerprint']}` |",
        f"| SHA-256 of the weights | `{facts['weights_sha256']}` |",
        f"| default decode | steps: {model['decode_steps']}, γ = {model['decode_gamma']} |",
        f"| saturated values in the integer hyper decoder for random z | {saturations} |",
        *(_row(name, value) for name, value in measurements.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, value: float | str) -> str:
    return f"| {name} | {value if isinstance(value, str) else f'{value:.4g}'} |"
