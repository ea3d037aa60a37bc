"""Checkpoints of a training run: the whole train state and the configuration, with orbax."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp
from jaxtyping import Array

from cdc_jax.bundle import check_same_weights, nest, quiet_orbax, unnest
from cdc_jax.errors import BundleError, CheckpointError
from cdc_jax.train_step import TrainState


class Checkpoints:
    """The folder `checkpoints/` of a run. Saving goes on in the background; `close` waits for it.

    Args:
      workdir: the run's folder.
      keep: how many of the latest checkpoints to keep.
    """

    def __init__(self, workdir: str | Path, keep: int | None = None):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        folder = (Path(workdir) / "checkpoints").absolute()
        try:
            with quiet_orbax():
                handlers = {item: ocp.StandardCheckpointHandler() for item in ("state", "weights", "ema")}
                handlers["config"] = ocp.JsonCheckpointHandler()
                self._manager = ocp.CheckpointManager(folder, options=options, item_handlers=handlers)
        except OSError as error:
            raise CheckpointError(f"cannot use the folder {folder}: {error.strerror or error}") from error

    def save(self, state: TrainState, config: ml_collections.ConfigDict) -> None:
        """Saves a state under its step. Raises CheckpointError where it cannot be written."""
        rest = {"step": state.step, "optimizer": jax.tree.leaves(state.optimizer)}
        items = {
            "state": ocp.args.StandardSave(rest),
            "weights": ocp.args.StandardSave(nest(state.params)),
            "config": ocp.args.JsonSave(config.to_dict()),
        }
        if state.ema:
            items["ema"] = ocp.args.StandardSave(nest(state.ema))
        try:
            with quiet_orbax():
                self._manager.save(int(state.step), args=ocp.args.Composite(**items))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot save the checkpoint of step {int(state.step)}: {error}") from error

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints."""
        return sorted(self._manager.all_steps())

    def restore(self, like: TrainState, step: int) -> TrainState:
        """The state of a step, bit for bit.

        Args:
          like: a state of the same run; only its shapes are used.

        Raises:
          CheckpointError: it is of another architecture (the first weight that differs is named), or unreadable.
        """
        params = self.restore_params(like.params, step, "weights")
        ema = self.restore_params(like.ema, step, "ema") if like.ema else {}
        leaves, structure = jax.tree.flatten(like.optimizer)
        target = _abstract({"step": like.step, "optimizer": leaves})
        rest = self._restore("state", step, target)
        return TrainState(rest["step"], params, ema, jax.tree.unflatten(structure, rest["optimizer"]))

    def restore_params(self, like: Mapping[str, Array], step: int, item: str) -> dict[str, Array]:
        """`weights` or `ema` of a step, by dotted name. Raises CheckpointError as `restore`."""
        try:
            stored = unnest(self._manager.item_metadata(step)[item].tree)
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint of step {step} has no {item}: {error}") from error
        try:
            check_same_weights(like, stored, f"the checkpoint of step {step}")
        except BundleError as error:
            raise CheckpointError(f"{error}; it is of another architecture than this configuration") from error
        return unnest(self._restore(item, step, nest(_abstract(dict(like)))))

    def restore_config(self, step: int) -> dict:
        """The configuration a step was saved with, as plain values."""
        with quiet_orbax():
            return self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]

    def _restore(self, item: str, step: int, target):
        try:
            with quiet_orbax():
                args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
                return self._manager.restore(step, args=args)[item]
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint of step {step} cannot be read: {error}") from error

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        with quiet_orbax():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the folder."""
        with quiet_orbax():
            self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _abstract(tree):
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=device), tree
    )
