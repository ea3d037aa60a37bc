"""The training loop.

Resume order: configuration checked → pictures loaded → fresh state built → newest complete checkpoint restored into it
→ metrics after that step dropped → loop from there. Batches and random numbers of step k follow from (seed, k), so a
resumed run does what an uninterrupted one would have done.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path

import jax
import ml_collections
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from cdc_jax.checkpoint import Checkpoints
from cdc_jax.codec import synthesize
from cdc_jax.config import check_config, model_config
from cdc_jax.data.pipeline import open_batches
from cdc_jax.data.sources import held_out_pictures
from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.images import pad_to_multiple
from cdc_jax.metrics.distortion import psnr_db
from cdc_jax.models.config import STRIDE, ModelConfig
from cdc_jax.models.params import Params, merge
from cdc_jax.pixels import to_unit_range
from cdc_jax.run_log import RunLog
from cdc_jax.train_step import TrainState, init_state, train_step


def train(config: ml_collections.ConfigDict, workdir: str | Path) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start, to `config.train.steps`.

    Writes `checkpoints/` and `metrics.jsonl` into `workdir`.

    Raises:
      ConfigError, CheckpointError, ImageError: as their names say.
      CdcError: the loss is no longer finite; the last checkpoint is kept.
    """
    check_config(config)
    workdir = Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {workdir}: {error.strerror}") from error

    # -- data
    held_out = held_out_pictures(config)
    preview = held_out[0][1] if held_out else None

    # -- state
    state = init_state(config)
    step_function = jax.jit(functools.partial(train_step, config), donate_argnums=0)
    metrics = RunLog(workdir)
    with Checkpoints(workdir, config.train.keep_checkpoints) as checkpoints:
        latest = checkpoints.latest_step()
        if latest is not None:
            state = checkpoints.restore(state, latest)
        start = int(state.step)
        metrics.drop_after(start)
        if start == 0 and preview is not None:
            metrics.write(0, measure(config, state, preview))

        # -- loop
        batches = open_batches(config, process_index=0, process_count=1, first_step=start)
        with batches, tqdm(total=config.train.steps, initial=start, unit="step", desc="training", smoothing=0.1) as bar:
            logged, logged_at, before = start, time.perf_counter(), {}
            for step in range(start, config.train.steps):
                state, terms = step_function(state, next(batches).images)
                jax.block_until_ready(before)  # one step ahead of the device, not more
                before = terms
                done, last = step + 1, step + 1 == config.train.steps
                if done % config.train.log_every == 0 or last:
                    values = {name: float(value) for name, value in terms.items()}
                    _check_finite(values, done)
                    values["step_seconds"] = (time.perf_counter() - logged_at) / (done - logged)
                    metrics.write(done, values)
                    bar.set_postfix(metrics.summary())
                if preview is not None and (done % config.train.eval_every == 0 or last):
                    metrics.write(done, measure(config, state, preview))
                    bar.set_postfix(metrics.summary())
                if done % config.train.checkpoint_every == 0 or last:
                    checkpoints.save(state, config)
                if done % config.train.log_every == 0:
                    logged, logged_at = done, time.perf_counter()
                bar.update()
    return state


def best_params(config: ml_collections.ConfigDict, state: TrainState) -> Params:
    """What is tested and exported: the moving average where the recipe has one."""
    return state.ema if config.ema.enabled else state.params


def measure(
    config: ml_collections.ConfigDict, state: TrainState, picture: UInt8[np.ndarray, "h w 3"]
) -> dict[str, float]:
    """Rate and PSNR on a picture that was not trained on, at each of `config.train.eval_steps`."""
    params, model = best_params(config, state), model_config(config)
    height, width, _ = picture.shape
    y_hat, rate_bits = _compress(model, params, pad_to_multiple(picture, STRIDE)[None])
    figures = {"held_out_bpp": float(rate_bits[0]) / (height * width)}
    for steps in config.train.eval_steps:
        settings = np.uint32(0), np.float32(config.model.decode_gamma), np.float32(0)
        decoded = np.asarray(synthesize(model, steps, False, params, y_hat, *settings)[0])[:height, :width]
        figures[f"held_out_psnr_db_{steps}"] = psnr_db(picture, decoded)
    return figures


@functools.partial(jax.jit, static_argnums=0)
def _compress(model: ModelConfig, params: Params, images: UInt8[jax.Array, "b h w 3"]):
    compressed = merge(model, params).compress(to_unit_range(images))
    return compressed.y_hat, compressed.rate_bits


def _check_finite(values: dict[str, float], step: int) -> None:
    for name, value in values.items():
        if not np.isfinite(value):
            raise CdcError(f"{name} is {value} at step {step}; lower the learning rate, and resume from the checkpoint")
