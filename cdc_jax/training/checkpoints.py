"""Checkpoints of a training run, with orbax: train state, configuration, position in the data, and metrics.

They are written in the background under a temporary name, so that an interrupted one does not count as a checkpoint.
The latest ones and the best one are kept. The folder may lie in an object store (`gs://…`).
"""

from __future__ import annotations

import math
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
from cdc_jax.io.files import is_remote
from cdc_jax.models.params import check_same_weights, nest, unnest
from cdc_jax.runtime.orbax import quiet_orbax
from cdc_jax.runtime.sharding import make_mesh, replicated
from cdc_jax.training.old_names import current_data_state, current_metrics
from cdc_jax.training.step import TrainState

OBJECTIVE = "validation_objective"  # the metric whose lowest value makes a checkpoint the best
_ARRAYS = ("state", "weights", "ema")
_JSON = ("config", "data")


class Checkpoints:
    """The folder `checkpoints/` of a run. Saving runs in the background; `close` waits for it.

    Args:
      workdir: the run's folder.
      keep: how many of the latest checkpoints to keep, besides the best; None: all.
      sharding: where restored arrays go; None: to the first device.

    Raises:
      CheckpointError: the folder cannot be used.
    """

    def __init__(self, workdir: epath.PathLike, keep: int | None = None, sharding: Sharding | None = None):
        self._sharding = sharding or replicated(make_mesh(jax.local_devices()[:1]))
        policies = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: current_metrics(metrics)[OBJECTIVE],
                    reverse=True,  # ascending order would keep the highest
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        folder = epath.Path(workdir) / "checkpoints"
        self._folder = folder if is_remote(workdir) else folder.absolute()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies,
            best_fn=lambda metrics: current_metrics(metrics)[OBJECTIVE],  # without it, metrics are not stored
            create=True,
        )
        handlers = {name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
        handlers |= {name: ocp.JsonCheckpointHandler() for name in _JSON}
        with _failing_as(f"Cannot use the folder {self._folder}"):
            if self._folder.exists() and not self._folder.is_dir():
                raise CheckpointError(f"Cannot keep checkpoints in {self._folder}: there is a file of that name.")
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

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
          data: the position in the data, as values that JSON has.
          metrics: metrics of the validation images, `OBJECTIVE` among them; None where nothing was measured.

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
        with _failing_as(f"Cannot save a checkpoint at step {step}"):
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=dict(metrics) if metrics else None)

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Step of the checkpoint with the lowest validation objective, None where none was measured."""
        measured = {step: self.metrics(step).get(OBJECTIVE) for step in self.steps()}
        measured = {step: value for step, value in measured.items() if value is not None and math.isfinite(value)}
        return min(measured, key=measured.get) if measured else None

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints."""
        return sorted(self._manager.all_steps())

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics of the validation images at a step; empty where nothing was measured."""
        with _failing_as(f"The metrics of step {step} cannot be read"):
            return current_metrics(self._manager.metrics(step) or {})

    def restore(self, like: TrainState, step: int) -> TrainState:
        """The state of a step, bit for bit.

        Args:
          like: a state of the same run; only its shapes are used.

        Raises:
          CheckpointError: the checkpoint is unreadable, or of another architecture (the message names the first weight
            that differs).
        """
        params = self.restore_params(like.params, step, "weights")
        ema = self.restore_params(like.ema, step, "ema") if like.ema else {}
        leaves, structure = jax.tree.flatten(like.optimizer)
        target = self._abstract({"step": like.step, "optimizer": leaves})
        rest = self._restore("state", step, target)
        return TrainState(rest["step"], params, ema, jax.tree.unflatten(structure, rest["optimizer"]))

    def restore_params(self, like: Mapping[str, Array], step: int, item: str) -> dict[str, Array]:
        """`weights` or `ema` of a step, by dotted name. Raises CheckpointError as `restore`."""
        with _failing_as(f"The checkpoint of step {step} has no {item} that can be read"):
            stored = unnest(self._manager.item_metadata(step)[item].tree)
        try:
            check_same_weights(like, stored, f"The checkpoint of step {step}")
        except BundleError as error:
            reason = reason_of(error)
            raise CheckpointError(f"{reason}; it is of another architecture than this configuration.") from error
        return unnest(self._restore(item, step, nest(self._abstract(dict(like)))))

    def restore_json(self, step: int, item: str) -> dict:
        """`config` or `data` of a step, as plain values. Raises CheckpointError as `restore`."""
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
        """Waits until everything saved is on disk. Raises CheckpointError where something could not be written."""
        with _failing_as("The last checkpoint could not be written; the one before it is intact"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does, then releases the folder."""
        with _failing_as("The last checkpoint could not be written; the one before it is intact"):
            self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _failing_as(quiet_orbax):
    """Turns every error of orbax and its storage layers within a `with` block into a CheckpointError."""

    def __init__(self, sentence: str):
        self._sentence = sentence

    def __exit__(self, kind, error, traceback):
        super().__exit__()
        if isinstance(error, Exception) and not isinstance(error, CheckpointError):
            raise CheckpointError(f"{self._sentence}: {reason_of(error)}.") from error


def choose_step(checkpoints: Checkpoints, workdir: epath.PathLike, step: int | None, best: bool = False) -> int:
    """`step`, the best or the latest. Raises CheckpointError, with the list of steps, where there is none."""
    have: Sequence[int] = checkpoints.steps()
    listed = ", ".join(map(str, have)) or "none"
    if best:
        step = checkpoints.best_step()
        if step is None:
            raise CheckpointError(f"{workdir} has no best checkpoint: none was measured on validation images.")
    elif step is None:
        step = checkpoints.latest_step()
    if step is None or step not in have:
        raise CheckpointError(f"{workdir} has no checkpoint of step {step}; it has {listed}.")
    return step
