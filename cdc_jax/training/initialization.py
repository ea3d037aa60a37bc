"""The weights that a run starts from: fresh ones, another run's checkpoint, or a bundle.

The second phase of the recipe starts from the moving average of the first, with a fresh optimizer, at step 0. With
`freeze_entropy`, a run keeps the coding model of the run or bundle that it starts from, and can open the same files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from etils import epath

from cdc_jax.codec.bundle import load_bundle
from cdc_jax.codec.bundle_folder import bundle_folder, is_bundle
from cdc_jax.data.sources import open_sources
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import CheckpointError
from cdc_jax.io import hub
from cdc_jax.io.files import copy_tree, is_remote, reraise_as
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import build_coding, shapes
from cdc_jax.models.transform import PATCH_VALUES
from cdc_jax.training.checkpoints import Checkpoints, check_architecture, choose_step
from cdc_jax.training.config import model_config, stored_config
from cdc_jax.training.klt import KLT, image_klt
from cdc_jax.training.state import is_trained

CODING_FILE = "coding.npz"


class StartingWeights(NamedTuple):
    """The weights of a new run.

    Attributes:
      weights: all weights by name.
      coding: the coding model of the bundle or run that they come from; None if it must be built from the weights.
      model: the settings of that bundle's or run's model; None for fresh weights.
    """

    weights: Mapping[str, np.ndarray]
    coding: CodingModel | None = None
    model: ModelConfig | None = None


def starting_weights(config: ml_collections.ConfigDict) -> StartingWeights:
    """The weights that a new run starts from.

    Raises:
      CheckpointError, BundleError: `init_from` is neither a run nor a bundle, or has another architecture. The message
        then names the first weight that differs.
      ConfigError: the images have no KLT (see `image_klt`).
      CdcError: `init_from` cannot be read or downloaded.
    """
    if not config.init_from:
        return StartingWeights(_fresh_weights(config))
    named = hub.is_hub_name(config.init_from)
    origin = epath.Path(bundle_folder(config.init_from) if named else config.init_from)
    with reraise_as(f"Cannot read init_from, {origin}", origin):
        starts_from_run, starts_from_bundle = (origin / "checkpoints").is_dir(), is_bundle(origin)
    if starts_from_run:
        starting = _from_run(origin, config.init_weights)
    elif starts_from_bundle:
        starting = _from_bundle(origin)
    else:
        raise CheckpointError(f"init_from is {config.init_from!r}, which is neither a run's folder nor a bundle.")
    check_architecture(shapes(model_config(config)), starting.weights, config.init_from)
    return starting


def _fresh_weights(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """Random weights. In a model with the transform, process 0 computes the KLT of the training images for all."""
    model, klt = model_config(config), None
    if model.transform:
        klt = KLT(np.zeros((PATCH_VALUES, model.latent_channels)), np.ones(model.latent_channels))
        if jax.process_index() == 0:
            images = open_sources(config).training
            klt = image_klt(images, model.latent_channels, patches=config.init.klt_patches, seed=config.seed)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            klt = KLT(*multihost_utils.broadcast_one_to_all(tuple(v.astype(np.float32) for v in klt)))
        klt = KLT(*(np.asarray(value, np.float32) for value in klt))
    return initial_weights(model, config.seed, latent_gain=config.init.latent_gain, klt=klt)


def _from_bundle(origin: epath.Path) -> StartingWeights:
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) if is_remote(origin) else Path(origin)
        if is_remote(origin):
            copy_tree(origin, local)
        bundle = load_bundle(local)
    return StartingWeights(bundle.params, bundle.coding, bundle.config)


def _from_run(origin: epath.Path, which: str) -> StartingWeights:
    with Checkpoints(origin) as checkpoints:
        step = choose_step(checkpoints, origin, None)
        config = stored_config(checkpoints.restore_json(step, "config"))
        weights = run_weights(checkpoints, step, config, raw=which == "raw")
    return StartingWeights(weights, read_coding(origin), model_config(config))


def run_weights(
    checkpoints: Checkpoints, step: int, config: ml_collections.ConfigDict, *, raw: bool = False
) -> dict[str, np.ndarray]:
    """The weights of a run's checkpoint.

    Args:
      checkpoints: the run's checkpoints.
      step: the checkpoint's step.
      config: the run's settings.
      raw: return the raw weights even if the run has a moving average.

    Returns:
      All weights by name; for trained weights, their moving averages if the run has them.

    Raises:
      CheckpointError: the checkpoint cannot be read.
    """
    expected = shapes(model_config(config))
    weights = checkpoints.restore_params(expected, step, "weights")
    if config.ema.enabled and not raw:
        averaged = {name: leaf for name, leaf in expected.items() if is_trained(config, name)}
        weights |= checkpoints.restore_params(averaged, step, "ema")
    return {name: np.asarray(value) for name, value in weights.items()}


def keep_coding(workdir: epath.Path, coding: CodingModel) -> None:
    """Writes a frozen coding model into the run's folder, for export. Raises CdcError if it cannot be written."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, CODING_FILE)
        coding.save(local)
        with reraise_as(f"Cannot write {workdir / CODING_FILE}", workdir):
            (workdir / CODING_FILE).write_bytes(local.read_bytes())


def read_coding(workdir: epath.Path) -> CodingModel | None:
    """The frozen coding model of a run; None if it has none. Raises CdcError if it cannot be read."""
    stored = workdir / CODING_FILE
    with tempfile.TemporaryDirectory() as folder, reraise_as(f"Cannot read {stored}", stored):
        if not stored.is_file():
            return None
        local = Path(folder, CODING_FILE)
        local.write_bytes(stored.read_bytes())
        return CodingModel.load(local)


def frozen_coding(starting: StartingWeights) -> CodingModel:
    """The coding model that a run with `freeze_entropy` keeps."""
    return starting.coding or build_coding(starting.weights)
