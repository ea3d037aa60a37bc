"""The training loop.

Order at the start: configuration checked → devices → newest complete checkpoint restored, or starting weights → metrics
after that step dropped → data opened at that step → loop. Batch and random numbers of step k follow from (seed, k), so
a resumed run does what an uninterrupted one would have done.
"""

from __future__ import annotations

import time

import jax
import ml_collections
import numpy as np
from etils import epath
from tqdm import tqdm

from cdc_jax.data.multihost import open_shared_batches, shared_state
from cdc_jax.data.sources import check_workdir, validation_images
from cdc_jax.errors import CdcError, ConfigError, Interrupted
from cdc_jax.io.files import is_remote, reraise_as
from cdc_jax.models.params import Params
from cdc_jax.runtime.sharding import global_batch, make_mesh, replicated
from cdc_jax.training.checkpoints import Checkpoints
from cdc_jax.training.config import check_config, check_same_run
from cdc_jax.training.initialization import frozen_coding, keep_coding, starting_weights
from cdc_jax.training.loss import perceptual_weights
from cdc_jax.training.metrics_writer import RunLog
from cdc_jax.training.preemption import Interruption
from cdc_jax.training.profiling import StepTrace
from cdc_jax.training.step import TrainState, abstract_state, best_params, check_divisible, jit_train_step, new_state
from cdc_jax.training.validation import MOST_IMAGES, Validation

_NAMES_SHOWN = 8  # of a batch that broke the run


def train(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start, to `config.train.steps`.

    Writes `checkpoints/`, `metrics.jsonl` and `tensorboard/` into `workdir`, a folder or `gs://…`. In a run of several
    processes, each calls it.

    Raises:
      ConfigError, CheckpointError, BundleError: of the settings, a checkpoint, a bundle.
      CdcError: data are missing or corrupt; or loss or gradient is no longer finite: the last checkpoint is kept.
      Interrupted: SIGTERM or a preemption; the state is saved.
    """
    # -- configuration and devices
    check_config(config)
    mesh = make_mesh()
    process, processes = jax.process_index(), jax.process_count()
    check_divisible(config, mesh, processes)
    check_workdir(config, workdir)
    workdir = _make_folder(workdir)

    # -- what does not change: validation images, the perceptual network, the step
    perceptual = perceptual_weights(config)
    validation = Validation(config, validation_images(config, MOST_IMAGES), perceptual)
    perceptual = jax.device_put(perceptual, replicated(mesh))
    step_function = jit_train_step(config, mesh)
    log = RunLog(workdir, active=process == 0)

    with Checkpoints(workdir, config.train.keep_checkpoints, replicated(mesh)) as checkpoints:
        # -- state
        latest = checkpoints.latest_step()
        if latest is None:
            state, data_state = _fresh_state(config, workdir, mesh, process), None
        else:
            check_same_run(checkpoints.restore_json(latest, "config"), config, workdir)
            state = checkpoints.restore(abstract_state(config), latest)
            data_state = checkpoints.restore_json(latest, "data")
        start, saved = int(state.step), latest
        log.drop_after(-1 if latest is None else start)
        if start == 0 and validation:
            _measure(validation, state, log, 0)

        # -- loop
        data = open_shared_batches(config, start, data_state)
        total = config.train.steps
        bar = tqdm(total=total, initial=start, unit="step", desc="training", smoothing=0.1, disable=process > 0)
        trace = StepTrace(log.folder / "profile", config.train.profile_step if process == 0 else 0)
        with log, data as batches, bar, trace, Interruption() as interruption:
            clock, running = _Clock(), None
            for step in range(start, config.train.steps):
                trace.before(step)
                with clock.waiting():
                    batch = next(batches)
                images = global_batch(mesh, batch.images, config.data.batch_size)
                state, terms = step_function(state, images, perceptual if step >= config.loss.rho_start_step else {})
                _sync_and_check(running, saved, log)  # one step ahead of the device, not more
                running = (step + 1, terms, batch.names)
                clock.steps += 1

                done, last = step + 1, step + 1 == config.train.steps
                stop = interruption.requested(done)
                saving = done % config.train.checkpoint_every == 0 or last or stop
                measuring = validation and not stop and (saving or done % config.train.eval_every == 0)
                logging = done % config.train.log_every == 0 or last
                if logging or saving or measuring:
                    values, running = _sync_and_check(running, saved, log), None
                if logging:
                    log.write(done, values | clock.read(config.data.batch_size))
                metrics = _measure(validation, state, log, done) if measuring else None
                if saving:
                    data_state = shared_state(batches)
                    log.write(done, {f"images_{name}": n for name, n in data_state["counters"].items()})
                    checkpoints.save(state, config, data_state, metrics)
                    saved = done
                    log.publish()
                if saving or measuring:
                    clock.restart()
                bar.set_postfix(log.summary(), refresh=False)
                bar.update()
                if stop and not last:
                    checkpoints.wait()
                    raise Interrupted(f"Stopped after step {done}; the same command resumes from there.")
    return state


def local_params(state: TrainState) -> Params:
    """What is tested and exported, on this process's first device."""
    return {name: value.addressable_data(0) for name, value in best_params(state).items()}


def _make_folder(workdir: epath.PathLike) -> epath.Path:
    folder = epath.Path(workdir)
    kind = CdcError if is_remote(workdir) else ConfigError  # an object store may answer at the next attempt
    with reraise_as(f"Cannot make the folder {folder}", folder, kind=kind):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fresh_state(config, workdir: epath.Path, mesh, process: int) -> TrainState:
    starting = starting_weights(config)
    if config.freeze_entropy and process == 0:
        keep_coding(workdir, frozen_coding(starting))
    return new_state(config, starting.weights, mesh)


def _measure(validation: Validation, state: TrainState, log: RunLog, step: int) -> dict[str, float]:
    """Every process measures by itself, and all find the same."""
    metrics, images = validation.measure(local_params(state))
    log.write(step, metrics)
    log.write_images(step, images)
    return metrics


def _sync_and_check(running: tuple | None, latest: int | None, log: RunLog) -> dict[str, float]:
    """Waits for a step; its metrics. Raises CdcError where one is not finite, and lists this process's images."""
    if running is None:
        return {}
    step, terms, names = running
    values = {name: float(value) for name, value in jax.device_get(terms).items()}
    not_finite = [name for name, value in values.items() if not np.isfinite(value)]
    if not_finite:
        kept = "no checkpoint was saved yet" if latest is None else f"the checkpoint of step {latest} is kept"
        names = list(dict.fromkeys(names))
        shown, more = ", ".join(names[:_NAMES_SHOWN]), len(names) - _NAMES_SHOWN
        if more > 0:
            shown += f" and {more} more, listed in {log.add_text(f'batch_of_step_{step}_{jax.process_index()}', names)}"
        raise CdcError(
            f"{not_finite[0]} is {values[not_finite[0]]} at step {step}, trained on {shown}; {kept}: "
            "start again with a lower optimizer.learning_rate, or without these images."
        )
    return values


class _Clock:
    """Step time and the share of it spent waiting for data, since the last reading."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self._since, self._waited_seconds, self.steps = time.perf_counter(), 0.0, 0

    def waiting(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_) -> None:
        self._waited_seconds += time.perf_counter() - self._entered

    def read(self, batch_size: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._since
        values = {
            "step_seconds": seconds / self.steps,
            "images_per_second": batch_size * self.steps / seconds,
            "data_wait_share": self._waited_seconds / seconds,
        }
        self.restart()
        return values
