"""Exports a training run's checkpoint as a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_collections
from etils import epath
from jaxtyping import Array

from cdc_jax.codec.bundle import save_bundle
from cdc_jax.codec.serving import Serving
from cdc_jax.errors import CheckpointError
from cdc_jax.evaluation.cdc import bundle_name
from cdc_jax.io.files import reraise_as
from cdc_jax.training.checkpoints import Checkpoints, choose_step
from cdc_jax.training.config import model_config, stored_config
from cdc_jax.training.distillation import lineage
from cdc_jax.training.initialization import read_coding, run_weights


def export_params(
    out_dir: str | Path,
    config: ml_collections.ConfigDict,
    params: Mapping[str, Array],
    step: int,
    *,
    metrics: Mapping[str, float | str] | None = None,
    license: str = "other",
    **options,
) -> None:
    """Writes a bundle with a run's weights at a step.

    Args:
      out_dir: the bundle's folder, or its name on the hub.
      config: the run's settings.
      params: the weights by name.
      step: the training step of the weights, for the model card.
      metrics: further entries of the model card, by title.
      license: the identifier of the weights' license.
      **options: `coding`, `half`, `serving` and `overwrite` of `save_bundle`.

    Raises:
      BundleError: see `save_bundle`.
    """
    terms = f"License of the weights: {license}."
    if license == "other":
        terms = "Whoever trained the weights decides on their license."
    save_bundle(
        out_dir,
        model_config(config),
        params,
        provenance=f"Trained with cdc_jax. {terms}",
        measurements={**_recipe(config, step), **(metrics or {})},
        license=license,
        **options,
    )


def _recipe(config: ml_collections.ConfigDict, step: int) -> dict[str, str]:
    """The model card's entries on training, by title."""
    recipe = {
        "trained on": _data(config),
        "crops": f"{config.data.crop}×{config.data.crop} pixels, {config.data.batch_size} a step",
        "steps": str(step),
        "β_rate, ρ": f"{_rate_weights(config)}, {config.loss.rho:g}",
        "weights": "the moving average" if config.ema.enabled else "the raw ones",
    }
    if config.distill.steps:
        del recipe["β_rate, ρ"]
        steps = " → ".join(map(str, lineage(config)))
        recipe["distilled from"] = f"{bundle_name(config.init_from)}, {steps} steps, ρ = {config.loss.rho:g}"
    elif config.init_from:
        frozen = ", its entropy model kept" if config.freeze_entropy else ""
        recipe["started from"] = epath.Path(config.init_from).name + frozen
    return recipe


def _rate_weights(config: ml_collections.ConfigDict) -> str:
    model = model_config(config)
    return f"{model.beta_max:g} to {model.beta_min:g}" if model.variable_rate else f"{config.loss.beta:g}"


def _data(config: ml_collections.ConfigDict) -> str:
    """The data set's name, without this machine's paths."""
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
    half: bool = False,
    serving: Serving | None = None,
    license: str = "other",
    overwrite: bool = False,
) -> int:
    """Exports a checkpoint of a run as a bundle, with the moving average of the weights if the run has one.

    Args:
      workdir: the run's folder, local or in an object store.
      out_dir: the bundle's folder, or hf://OWNER/REPO[@BRANCH][/SUBFOLDER], where it is uploaded.
      step: the checkpoint's step; None: the latest.
      best: export the checkpoint with the lowest validation objective instead.
      half: whether to store float16 weights, in one file that is half the size and loads faster.
      serving: programs to add for serving without this package; None adds none.
      license: the identifier of the weights' license, for the model card and the hub's metadata.
      overwrite: whether to replace an existing bundle at `out_dir`.

    Returns:
      The step of the exported checkpoint.

    Raises:
      CheckpointError: there is no such checkpoint, or it cannot be read.
      BundleError: the bundle cannot be written or uploaded.
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
    options = {"half": half, "serving": serving, "license": license, "overwrite": overwrite}
    export_params(out_dir, config, params, chosen, metrics=metrics, coding=coding, **options)
    return chosen
