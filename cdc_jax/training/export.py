"""A training run's checkpoint → a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_collections
from etils import epath
from jaxtyping import Array

from cdc_jax.codec.bundle import save_bundle
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.errors import CheckpointError
from cdc_jax.io.files import reraise_as
from cdc_jax.training.checkpoints import Checkpoints, choose_step
from cdc_jax.training.config import model_config, stored_config
from cdc_jax.training.initialization import read_coding, run_weights


def export_params(
    out_dir: str | Path,
    config: ml_collections.ConfigDict,
    params: Mapping[str, Array],
    step: int,
    *,
    metrics: Mapping[str, float | str] | None = None,
    coding: CodingModel | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a bundle of a run's weights at a step.

    Args:
      out_dir: the bundle's folder.
      config: the run's settings.
      params: the weights by name.
      step: the step that they are of, for the model card.
      metrics: more entries of the model card.
      coding: the coding model that a run with `freeze_entropy` kept; None builds it from the weights.
      overwrite: whether to replace a bundle that is at `out_dir`.

    Raises:
      BundleError: as `save_bundle`.
    """
    provenance = "Trained with cdc_jax. The weights are their trainer's to license."
    save_bundle(
        out_dir,
        model_config(config),
        params,
        provenance=provenance,
        measurements={**_recipe(config, step), **(metrics or {})},
        coding=coding,
        overwrite=overwrite,
    )


def _recipe(config: ml_collections.ConfigDict, step: int) -> dict[str, str]:
    """What the model card says of the training, by title."""
    recipe = {
        "trained on": _data(config),
        "crops": f"{config.data.crop}×{config.data.crop} pixels, {config.data.batch_size} a step",
        "steps": str(step),
        "β_rate, ρ": f"{config.loss.beta:g}, {config.loss.rho:g}",
        "weights": "the moving average" if config.ema.enabled else "the raw ones",
    }
    if config.init_from:
        frozen = ", its entropy model kept" if config.freeze_entropy else ""
        recipe["started from"] = epath.Path(config.init_from).name + frozen
    return recipe


def _data(config: ml_collections.ConfigDict) -> str:
    """The data set's name, without paths of this machine."""
    data = config.data
    folders = [Path(path).name for path in data.path.split(",") if path] or [""]
    return {
        "folder": f"the folder{'s' if len(folders) > 1 else ''} {', '.join(map(repr, folders))}",
        "scikit-image": "photographs of scikit-image",
        "tfds": f"{data.name}, split {data.split} (TFDS)",
        "vimeo90k": "Vimeo-90k septuplets",
    }[data.source]


def export_workdir(
    workdir: epath.PathLike,
    out_dir: str | Path,
    *,
    step: int | None = None,
    best: bool = False,
    overwrite: bool = False,
) -> int:
    """Makes a bundle of a run's checkpoint: of its moving average where it has one. Returns its step.

    Args:
      workdir: the run's folder, local or in an object store.
      out_dir: the bundle's.
      step: which checkpoint; None: the latest.
      best: the one with the lowest validation loss instead.
      overwrite: replace a bundle that is at `out_dir`.

    Raises:
      CheckpointError: there is no such checkpoint, or it cannot be read.
      BundleError: the bundle cannot be written.
    """
    workdir = epath.Path(workdir)
    with reraise_as(f"Cannot read {workdir}", workdir, kind=CheckpointError):
        if not (workdir / "checkpoints").is_dir():
            raise CheckpointError(f"{workdir} is not a training run's folder: it has no folder checkpoints.")
    with Checkpoints(workdir) as checkpoints:
        chosen = choose_step(checkpoints, workdir, step, best)
        config = stored_config(checkpoints.restore_json(chosen, "config"))
        params = run_weights(checkpoints, chosen, config)
        metrics = checkpoints.metrics(chosen)
    coding = read_coding(workdir) if config.freeze_entropy else None
    export_params(out_dir, config, params, chosen, metrics=metrics, coding=coding, overwrite=overwrite)
    return chosen
