"""The training loop.

A run starts in this order: check the configuration; make the device mesh; restore the newest complete checkpoint, or
initialize the weights; drop logged metrics after that step; open the data at that step; loop. The batch and the random
numbers of step k depend only on (seed, k), so a resumed run ends with the same weights as an uninterrupted one.
Distillation is several runs in sequence (`training.distillation`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import UInt8
from tqdm import tqdm

from cdc_jax.data.multihost import open_shared_batches, shared_state
from cdc_jax.data.pipeline import Batches
from cdc_jax.data.sources import check_workdir, validation_images
from cdc_jax.errors import CdcError, ConfigError, Interrupted
from cdc_jax.io.files import is_remote, reraise_as
from cdc_jax.io.folder_lock import exclusive
from cdc_jax.models.params import Params
from cdc_jax.runtime.free_memory import release_unused
from cdc_jax.runtime.sharding import global_batch, make_mesh, replicated
from cdc_jax.training.checkpoints import Checkpoints
from cdc_jax.training.config_checks import check_config, check_same_run
from cdc_jax.training.distillation import load_teacher, next_teacher, stages, with_teacher
from cdc_jax.training.imitation import Teacher, make_teacher
from cdc_jax.training.initialization import StartingWeights, frozen_coding, keep_coding, starting_weights
from cdc_jax.training.loss import perceptual_weights
from cdc_jax.training.metrics_writer import RunLog
from cdc_jax.training.monitoring import Due, StepClock, StepMonitor, due_after, steps_at_once
from cdc_jax.training.preemption import Interruption
from cdc_jax.training.profiling import StepTrace
from cdc_jax.training.state import TrainState, best_params
from cdc_jax.training.step import (
    Metrics,
    Perceptual,
    abstract_state,
    check_divisible,
    jit_train_step,
    jit_train_steps,
    new_state,
)
from cdc_jax.training.validation import MOST_IMAGES, Validation

_StepFunction = Callable[[TrainState, int, list[UInt8[np.ndarray, "b h w 3"]]], tuple[TrainState, Metrics]]


def train(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from step 0, to step `config.train.steps`.

    Writes `checkpoints/`, `metrics.jsonl` and `tensorboard/` into `workdir`; in distillation, for each stage. In a run
    of several processes, each of them calls this function.

    Args:
      config: the run's settings, as from `default_config`.
      workdir: the run's folder, local or in an object store (`gs://…`). It is created if it does not exist.

    Returns:
      The state after the last step.

    Raises:
      ConfigError, CheckpointError, BundleError: a setting, a checkpoint or a bundle is invalid.
      CdcError: another run uses `workdir`, data is missing or corrupt, or a loss or gradient is not finite. In the last
        case, the last checkpoint is kept.
      Interrupted: SIGTERM or a preemption notice arrived; the state is saved.
    """
    mesh = _check_and_make_mesh(config, workdir)
    workdir = _make_folder(workdir)
    with exclusive(workdir, "that training run") if jax.process_index() == 0 else contextlib.nullcontext():
        if not config.distill.steps:
            return _train_run(config, workdir, mesh)
        return _distill(config, workdir, mesh)


def _distill(config: ml_collections.ConfigDict, workdir: epath.Path, mesh: Mesh) -> TrainState:
    """Trains one student after another; each is the teacher of the next. Returns the last one's state."""
    teacher = load_teacher(config)
    *earlier, (config, workdir) = stages(config, workdir)
    for stage, folder in earlier:
        student = _train_run(with_teacher(stage, teacher.weights), _make_folder(folder), mesh, teacher)
        teacher = next_teacher(teacher, best_params(student))
        del student  # frees the devices' memory
    return _train_run(with_teacher(config, teacher.weights), workdir, mesh, teacher)


def _train_run(
    config: ml_collections.ConfigDict, workdir: epath.Path, mesh: Mesh, teacher: StartingWeights | None = None
) -> TrainState:
    """`train`, or one stage of distillation, whose student starts as a copy of its teacher."""
    perceptual = perceptual_weights(config)
    guide = None if teacher is None else make_teacher(config, teacher.weights)
    validation = Validation(config, validation_images(config, MOST_IMAGES), perceptual, guide)
    run_steps = _step_function(config, mesh, perceptual, guide)
    log = RunLog(workdir, active=jax.process_index() == 0)

    with Checkpoints(workdir, config.train.keep_checkpoints, replicated(mesh)) as checkpoints:
        state, data_state = _restore_or_start(config, workdir, mesh, checkpoints, teacher)
        start = int(state.step)
        log.drop_after(start or -1)  # a new run drops everything
        run = _Run(config, log, checkpoints, validation)
        if start == 0:
            run.measure(0, state)
        with log, open_shared_batches(config, start, data_state) as batches:
            return _train_steps(run, run_steps, state, batches)


def _train_steps(run: _Run, run_steps: _StepFunction, state: TrainState, batches: Batches) -> TrainState:
    """Runs the steps from `state.step` to `config.train.steps`. Raises the errors of `train`."""
    start, end = int(state.step), run.config.train.steps
    with _progress_bar(start, end) as bar, _step_trace(run) as trace, Interruption() as interruption:
        run.clock.restart()
        step = start
        while step < end:
            trace.before(step)
            given = [run.clock.next_batch(batches) for _ in range(steps_at_once(run.config, step))]
            state, metrics = run_steps(state, step, [batch.images for batch in given])
            step += len(given)
            run.monitor.add(step, metrics, [batch.names for batch in given])
            due = run.due_after(step, interrupted=interruption.requested())
            run.maybe_log(due)
            measured = run.maybe_measure(due, state)
            run.maybe_save(due, state, batches, measured)
            bar.set_postfix(run.log.summary(), refresh=False)
            bar.update(len(given))
            run.maybe_stop(due)
    return state


class _Run:
    """Logs, measures and saves a run when each is due.

    Attributes:
      config: the run's settings.
      log: the run's log.
      checkpoints: the run's checkpoints.
      validation: measures weights on the validation images.
      clock: times the steps.
      monitor: waits for steps and checks their metrics.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, log: RunLog, checkpoints: Checkpoints, validation: Validation
    ):
        self.config, self.log, self.checkpoints, self.validation = config, log, checkpoints, validation
        self.clock, self.monitor = StepClock(), StepMonitor(log, checkpoints.latest_step)

    def due_after(self, step: int, *, interrupted: bool) -> Due:
        return due_after(self.config, step, has_validation=bool(self.validation), interrupted=interrupted)

    def maybe_log(self, due: Due) -> None:
        if due.log:
            self.log.write(due.step, self.monitor.wait() | self.clock.read(self.config.data.batch_size))

    def maybe_measure(self, due: Due, state: TrainState) -> dict[str, float] | None:
        """Metrics on the validation images; None if they are not due."""
        if not due.measure:
            return None
        self.monitor.wait()
        metrics = self.measure(due.step, state)
        self.clock.restart()
        return metrics

    def measure(self, step: int, state: TrainState) -> dict[str, float]:
        """Measures the validation images and logs the metrics; returns {} if there are no images.

        Every process measures all images, so that all processes get the same metrics.
        """
        if not self.validation:
            return {}
        metrics, images = self.validation.measure(_local_params(state))
        release_unused()  # what validation and compiling took
        self.log.write(step, metrics)
        self.log.write_images(step, images)
        return metrics

    def maybe_save(self, due: Due, state: TrainState, batches: Batches, measured: dict[str, float] | None) -> None:
        if not due.save:
            return
        self.monitor.wait()
        data_state = shared_state(batches)
        self.log.write(due.step, {f"images_{name}": n for name, n in data_state["counters"].items()})
        self.checkpoints.save(state, self.config, data_state, measured)
        self.log.publish()
        self.clock.restart()

    def maybe_stop(self, due: Due) -> None:
        if due.stop:
            self.checkpoints.wait()
            raise Interrupted(f"Stopped after step {due.step}; the same command resumes from there.")


def _check_and_make_mesh(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> Mesh:
    check_config(config)
    mesh = make_mesh()
    check_divisible(config, mesh, jax.process_count())
    check_workdir(config, workdir)
    return mesh


def _make_folder(workdir: epath.PathLike) -> epath.Path:
    folder = epath.Path(workdir)
    kind = CdcError if is_remote(workdir) else ConfigError  # an object store may work at the next attempt
    with reraise_as(f"Cannot make the folder {folder}", folder, kind=kind):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _step_function(
    config: ml_collections.ConfigDict, mesh: Mesh, perceptual: Perceptual, teacher: Teacher | None = None
) -> _StepFunction:
    """(state, step, this process's images of each step) → (state, metrics), from that step on.

    LPIPS counts from step `loss.rho_start_step`.
    """
    perceptual = jax.device_put(perceptual, replicated(mesh))
    teachers = () if teacher is None else (jax.device_put(teacher, replicated(mesh)),)
    one, several = jit_train_step(config, mesh), jit_train_steps(config, mesh)

    def run_steps(state, step, rows):
        batches = [global_batch(mesh, each, config.data.batch_size) for each in rows]
        networks = (perceptual if step >= config.loss.rho_start_step else {}, *teachers)
        return one(state, batches[0], *networks) if len(batches) == 1 else several(state, batches, *networks)

    return run_steps


def _restore_or_start(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    mesh: Mesh,
    checkpoints: Checkpoints,
    starting: StartingWeights | None = None,
) -> tuple[TrainState, dict | None]:
    """(state, position in the data) of the newest checkpoint; a new state and None if there is no checkpoint.

    A new state has the weights `starting`, or if that is None, those of the configuration.
    """
    latest = checkpoints.latest_step()
    if latest is not None:
        check_same_run(checkpoints.restore_json(latest, "config"), config, workdir)
        state = checkpoints.restore(abstract_state(config), latest)
        return state, checkpoints.restore_json(latest, "data")
    starting = starting or starting_weights(config)
    if config.freeze_entropy and jax.process_index() == 0:
        keep_coding(workdir, frozen_coding(starting))
    return new_state(config, starting.weights, mesh), None


def _progress_bar(start: int, end: int) -> tqdm:
    hidden = jax.process_index() > 0
    return tqdm(total=end, initial=start, unit="step", desc="training", smoothing=0.1, disable=hidden)


def _step_trace(run: _Run) -> StepTrace:
    first = run.config.train.profile_step if jax.process_index() == 0 else 0
    return StepTrace(run.log.folder / "profile", first)


def _local_params(state: TrainState) -> Params:
    """The weights to measure, on this process's first device."""
    return {name: value.addressable_data(0) for name, value in best_params(state).items()}
