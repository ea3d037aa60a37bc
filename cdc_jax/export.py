"""A training run's checkpoint → a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_collections
from jaxtyping import Array

from cdc_jax.bundle import save_bundle
from cdc_jax.checkpoint import Checkpoints
from cdc_jax.config import model_config
from cdc_jax.errors import CheckpointError
from cdc_jax.models.params import shapes


def export_params(
    out_dir: str | Path,
    config: ml_collections.ConfigDict,
    params: Mapping[str, Array],
    step: int,
    *,
    figures: Mapping[str, float | str] | None = None,
    overwrite: bool = False,
) -> None:
    """Makes a bundle of a run's weights at a step. Raises BundleError as `save_bundle`."""
    data = f"the folder {Path(config.data.path).name!r}" if config.data.source == "folder" else "scikit-image"
    provenance = (
        f"Trained with cdc_jax for {step} steps of {config.data.batch_size} crops of {config.data.crop}×"
        f"{config.data.crop} pixels, β_rate = {config.loss.beta:g}, on pictures from {data}; "
        f"{'the moving average of the weights' if config.ema.enabled else 'the raw weights'}. "
        "The weights are their trainer's to license."
    )
    save_bundle(
        out_dir, model_config(config), params, provenance=provenance, figures=figures, overwrite=overwrite
    )


def export_workdir(workdir: str | Path, out_dir: str | Path, *, step: int | None = None) -> None:
    """Makes a bundle of a run's checkpoint: of its moving average where it has one.

    Args:
      workdir: the run's folder.
      out_dir: the bundle's.
      step: which checkpoint; None: the latest.

    Raises:
      CheckpointError: there is no such checkpoint.
      BundleError: the bundle cannot be written.
    """
    if not (Path(workdir) / "checkpoints").is_dir():
        raise CheckpointError(f"{workdir} is not a training run's folder: it has no folder checkpoints")
    with Checkpoints(workdir) as checkpoints:
        chosen = checkpoints.latest_step() if step is None else step
        if chosen is None or chosen not in checkpoints.steps():
            have = ", ".join(map(str, checkpoints.steps())) or "none"
            raise CheckpointError(f"{workdir} has no checkpoint of step {step}; it has {have}")
        config = ml_collections.ConfigDict(checkpoints.restore_config(chosen))
        item = "ema" if config.ema.enabled else "weights"
        params = checkpoints.restore_params(shapes(model_config(config)), chosen, item)
    export_params(out_dir, config, params, chosen)
