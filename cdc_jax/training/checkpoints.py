"""Checkpoints of a training run, with Orbax: train state, configuration, position in the data, and metrics.

They are written in the background under a temporary name, so that an interrupted save never counts as a checkpoint.
The latest ones and the best one are kept; others are renamed before they are deleted, so that a half-deleted one never
counts as a checkpoint either. The folder may be in an object store (`gs://…`).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Sharding
from jaxtyping import Array
from orbax.checkpoint import checkpoint_managers

from cdc_jax.errors import BundleError, CheckpointError, reason_of
from cdc_jax.io.files import is_remote, reraise_as
from cdc_jax.models.params import check_same_weights, nest, unnest
from cdc_jax.runtime.orbax import quiet_orbax
from cdc_jax.runtime.sharding import make_mesh, replicated
from cdc_jax.training.old_names import current_data_state, current_metrics
from cdc_jax.training.state import TrainState

OBJECTIVE = "validation_objective"  # the metric whose lowest value makes a checkpoint the best
_ARRAYS = ("state", "weights", "ema")
_JSON = ("config", "data")
_DELETED_FOLDER = ".deleted"


class Checkpoints:
    """The folder `checkpoints/` of a run. Saving runs in the background; `close` waits for it.

    Args:
      workdir: the run's folder.
      keep: the number of latest checkpoints to keep, besides the best; None: all.
      sharding: the sharding of restored arrays; None: all on the first local device.

    Raises:
      CheckpointError: the folder cannot be used.
    """

    def __init__(self, workdir: epath.PathLike, keep: int | None = None, sharding: Sharding | None = None):
        self._sharding = sharding or replicated(make_mesh(jax.local_devices()[:1]))
        policies = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=_objective,
                    reverse=True,  # keep the lowest
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        folder = epath.Path(workdir) / "checkpoints"
        self._folder = folder if is_remote(workdir) else folder.absolute()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies,
            best_fn=_objective,  # without it, metrics are not stored
            create=True,
            todelete_subdir=None if is_remote(workdir) else _DELETED_FOLDER,
        )
        handlers = {name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
        handlers |= {name: ocp.JsonCheckpointHandler() for name in _JSON}
        with _failing_as(f"Cannot use the folder {self._folder}"):
            if self._folder.exists() and not self._folder.is_dir():
                raise CheckpointError(f"Cannot keep checkpoints in {self._folder}: there is a file of that name.")
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        self._delete_renamed()

    def save(
        self,
        state: TrainState,
        config: ml_collections.ConfigDict,
        data: Mapping | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Saves a state under its step, in the background.

        Args:
          state: the state.
          config: the run's settings.
          data: the position in the data, as JSON values.
          metrics: metrics on the validation images, including `OBJECTIVE`; None if nothing was measured.

        Raises:
          CheckpointError: this checkpoint, or the one before it, could not be written.
        """
        step = int(state.step)
        items = {
            "state": ocp.args.StandardSave({"step": state.step, "optimizer": jax.tree.leaves(state.optimizer)}),
            "weights": ocp.args.StandardSave(nest(state.params)),
            "config": ocp.args.JsonSave(config.to_dict()),
            "data": ocp.args.JsonSave(dict(data or {})),
        }
        if state.ema:
            items["ema"] = ocp.args.StandardSave(nest(state.ema))
        self._delete_renamed()
        with _failing_as(f"Cannot save a checkpoint at step {step}"):
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=dict(metrics) if metrics else None)

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the checkpoint with the lowest validation objective; None if none was measured."""
        measured = {step: self.metrics(step).get(OBJECTIVE) for step in self.steps()}
        measured = {step: value for step, value in measured.items() if value is not None and math.isfinite(value)}
        return min(measured, key=measured.get) if measured else None

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def metrics(self, step: int) -> dict[str, float]:
        """Metrics on the validation images at a step; empty if nothing was measured."""
        with _failing_as(f"The metrics of step {step} cannot be read"):
            return current_metrics(self._manager.metrics(step) or {})

    def restore(self, like: TrainState, step: int) -> TrainState:
        """Restores the state that was saved at a step, bit for bit.

        Args:
          like: a state, or `abstract_state`, of the same architecture; only its shapes and dtypes are used.
          step: the checkpoint's step.

        Raises:
          CheckpointError: the checkpoint is unreadable or has another architecture. The message then names the first
            weight that differs.
        """
        params = self.restore_params(like.params, step, "weights")
        ema = self.restore_params(like.ema, step, "ema") if like.ema else {}
        leaves, structure = jax.tree.flatten(like.optimizer)
        target = self._abstract({"step": like.step, "optimizer": leaves})
        rest = self._restore("state", step, target)
        return TrainState(rest["step"], params, ema, jax.tree.unflatten(structure, rest["optimizer"]))

    def restore_params(self, like: Mapping[str, Array], step: int, item: str) -> dict[str, Array]:
        """The arrays of `item` ("weights" or "ema") by dotted name. `like` and the errors are as in `restore`."""
        with _failing_as(f"The checkpoint of step {step} has no {item} that can be read"):
            stored = unnest(self._manager.item_metadata(step)[item].tree)
        check_architecture(like, stored, f"The checkpoint of step {step}")
        return unnest(self._restore(item, step, nest(self._abstract(dict(like)))))

    def restore_json(self, step: int, item: str) -> dict:
        """The values of `item`, "config" or "data", saved at a step. Raises CheckpointError if it is unreadable."""
        values = self._restore(item, step, None)
        return current_data_state(values) if item == "data" else values

    def _restore(self, item: str, step: int, target):
        args = ocp.args.JsonRestore() if target is None else ocp.args.StandardRestore(target)
        with _failing_as(f"The checkpoint of step {step} cannot be read"):
            return self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]

    def _abstract(self, tree):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=self._sharding), tree
        )

    def wait(self) -> None:
        """Waits until all saves are on disk. Raises CheckpointError if one failed."""
        with _failing_as("The last checkpoint could not be written; the one before it is intact"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits like `wait`, with the same errors, then releases the folder."""
        with _failing_as("The last checkpoint could not be written; the one before it is intact"):
            self._manager.close()
        self._delete_renamed()

    def _delete_renamed(self) -> None:
        """Deletes the checkpoints that Orbax has moved aside for deletion. Their folder stays: Orbax may need it."""
        renamed = self._folder / _DELETED_FOLDER
        if not is_remote(self._folder) and jax.process_index() == 0 and renamed.exists():
            for checkpoint in renamed.iterdir():
                shutil.rmtree(checkpoint, ignore_errors=True)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _objective(metrics: Mapping[str, float]) -> float:
    return current_metrics(metrics)[OBJECTIVE]


def newest_settings(workdir: epath.Path) -> dict:
    """The configuration in a run's newest checkpoint, read before the processes of a run have joined.

    Orbax would start JAX's backends, after which the processes could no longer join.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.
    """
    with reraise_as(f"Cannot read the checkpoints in {workdir}", workdir, kind=CheckpointError):
        steps = [int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdigit()]
        if not steps:
            raise CheckpointError(f"{workdir} has no checkpoint.")
        try:
            return json.loads((workdir / "checkpoints" / str(max(steps)) / "config" / "metadata").read_text())
        except ValueError as error:
            raise CheckpointError(f"The configuration of step {max(steps)} in {workdir} is corrupt.") from error


def check_architecture(expected: Mapping[str, Array], stored: Mapping[str, Array], origin: str) -> None:
    """Raises CheckpointError if the names or shapes of weights differ; it names the first one that does.

    Args:
      expected: the configuration's weights by name; only their shapes are used.
      stored: the weights of a checkpoint or bundle, by name; only their shapes are used.
      origin: the name of that checkpoint or bundle, for the message.
    """
    try:
        check_same_weights(expected, stored, origin)
    except BundleError as error:
        raise CheckpointError(f"{reason_of(error)}; it has another architecture than this configuration.") from error


class _failing_as(quiet_orbax):
    """Within a `with` block, turns every error of Orbax and its storage layers into a CheckpointError."""

    def __init__(self, sentence: str):
        self._sentence = sentence

    def __exit__(self, kind, error, traceback):
        super().__exit__()
        if isinstance(error, Exception) and not isinstance(error, CheckpointError):
            raise CheckpointError(f"{self._sentence}: {reason_of(error)}.") from error


def choose_step(checkpoints: Checkpoints, workdir: epath.PathLike, step: int | None, best: bool = False) -> int:
    """The step of the checkpoint to use.

    Args:
      checkpoints: the run's checkpoints.
      workdir: the run's folder, for messages.
      step: the wanted step; None: the latest.
      best: choose the step with the lowest validation objective instead.

    Raises:
      CheckpointError: there is no such checkpoint; the message lists the steps that have one.
    """
    have: Sequence[int] = checkpoints.steps()
    if not have:
        raise CheckpointError(f"{workdir} has no checkpoint yet: its run ended, or was stopped, before the first one.")
    listed = ", ".join(map(str, have))
    if best:
        step = checkpoints.best_step()
        if step is None:
            raise CheckpointError(f"{workdir} has no best checkpoint: none was measured on validation images.")
    elif step is None:
        step = checkpoints.latest_step()
    if step is None or step not in have:
        raise CheckpointError(f"{workdir} has no checkpoint of step {step}; it has {listed}.")
    return step
