"""Batches of crops, prefetched by Grain's threads or worker processes.

    sharding.LocalPositions ─► crops.CropReader, in threads (and processes) ─► two batches prefetched ─► `Batches`

Batch k belongs to step k. Grain defines the order of records (shuffle, repeat), but this module decides which positions
a process reads. So Grain's iterator always starts at 0, and the state to save is the next step, not the iterator's
state.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import UInt8

from cdc_jax.data.crops import CropReader, Report
from cdc_jax.data.fingerprint import Identity, check_same_images, identity
from cdc_jax.data.sharding import GlobalOrder, LocalPositions
from cdc_jax.data.sources import open_sources
from cdc_jax.data.statistics import Tally
from cdc_jax.data.worker_process import check_death, stay_with_trainer
from cdc_jax.errors import CdcError, CheckpointError, ConfigError

_MAX_THREADS = 16


@dataclass(frozen=True)
class Batch:
    """One process's rows of a global batch.

    Attributes:
      images: the crops.
      names: the name of each crop's image.
      step: the training step that the batch belongs to, counted from 0.
    """

    images: UInt8[np.ndarray, "b s s 3"]
    names: list[str]
    step: int


class Batches:
    """An endless iterator over `Batch`, made by `open_batches`. Close it, or use it as a context manager.

    Attributes:
      identity: fingerprint of the training images.
    """

    def __init__(self, iterator: Any, step: int, tally: Tally, identity: Identity):
        self._iterator = [iterator]  # emptied by `close`, so that no Grain object outlives the interpreter
        self._finalizer = weakref.finalize(self, _close, self._iterator)
        self._step = step
        self._tally = tally
        self.identity = identity

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        """The next batch; waits until it is read.

        Raises:
          StopIteration: after `close`.
          CdcError: too many images are corrupt, none is usable, or a worker process died.
        """
        if not self._iterator:
            raise StopIteration
        try:
            images, reports = next(self._iterator[0])
        except RuntimeError as error:
            check_death(error)
            raise
        self._tally.add(reports)
        batch = Batch(images, [report.name for report in reports], self._step)
        self._step += 1
        return batch

    def state(self) -> dict[str, Any]:
        """The state that `open_batches` resumes from, as JSON values.

        The step and the images' fingerprint are the same on every process. Counters and corrupt records are this
        process's own, of the batches returned so far: `multihost.shared_state` combines them for a checkpoint.
        """
        counted = {"counters": self.counters(), "corrupt": self._tally.corrupt()}
        return {"next_step": self._step, "images": self.identity.to_dict(), **counted}

    def note_corrupt(self, records: Iterable[int]) -> None:
        """Adds records that other processes found corrupt.

        Raises:
          CdcError: too many records are corrupt.
        """
        self._tally.add_corrupt(records)

    def counters(self) -> dict[str, int]:
        """This process's numbers of records: `read`, and of these `corrupt`, `small` (skipped) and `upscaled`."""
        return dict(self._tally.counters)

    def close(self) -> None:
        """Stops the threads and processes that prefetch."""
        self._finalizer()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _close(iterator: list[Any]) -> None:
    iterator.pop().close()


def open_batches(
    config: ml_collections.ConfigDict,
    *,
    process_index: int,
    process_count: int,
    first_step: int,
    state: Mapping[str, Any] | None = None,
) -> Batches:
    """Opens the batches from `first_step` on. Process p of P gets rows p·B/P … (p + 1)·B/P − 1 of each global batch.

    Args:
      config: the run's settings, of which `data` and `seed` are used; B is `data.batch_size`.
      process_index: p.
      process_count: P; it may differ from that of the process that saved `state`.
      first_step: the step of the first batch.
      state: the data's state in the checkpoint that the run resumes from; None for a new run.

    Raises:
      ConfigError: P does not divide B, or a setting refers to something that does not exist.
      CheckpointError: the state belongs to another step or to other images.
      CdcError: data or packages are missing; the message names the command to run.
    """
    if config.data.batch_size % process_count:
        raise ConfigError(
            f"data.batch_size is {config.data.batch_size}, which {process_count} processes cannot share equally."
        )
    if state is not None and state.get("next_step") != first_step:
        raise CheckpointError(
            f"The checkpoint's data resume at step {state.get('next_step')}, but its weights at step {first_step}."
        )
    try:
        import grain
    except ImportError:
        raise CdcError("Training reads its images with Grain: pip install '.[train]'.") from None
    state = state or {}
    source = open_sources(config).training
    source_identity = identity(source)
    check_same_images(state.get("images", {}), source_identity)
    positions = LocalPositions(config.data.batch_size, process_index, process_count, first_step)
    reader = CropReader(
        source,
        GlobalOrder(len(source), config.seed),
        config.seed,
        config.data.crop,
        config.data.flip,
        upscale=config.data.small_images == "upscale",
        max_downscale=config.data.max_downscale,
        cache_bytes=config.data.cache_mib << 20,
    )
    iterator = iter(_read_ahead(grain, positions, reader, config.data.workers))
    counted = state.get("counters", {}) if process_index == 0 else {}
    limits = len(source), config.data.max_corrupt_fraction, config.data.crop
    return Batches(iterator, first_step, Tally(*limits, counted, state.get("corrupt", ())), source_identity)


def _read_ahead(grain: Any, positions: LocalPositions, reader: CropReader, workers: int) -> Any:
    """Grain's data set of (images, reports), with about two batches prefetched.

    Threads and workers read crops, not batches, so the order is the same for any number of them.
    """
    from absl import flags

    cores = os.cpu_count() or 1
    threads = max(2, min(_MAX_THREADS, cores // max(1, workers) + 1, 2 * positions.rows))
    ahead = max(threads, 2 * positions.rows)
    dataset = grain.MapDataset.source(positions).map(reader)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain reads its own flags; without absl.app, they get their defaults
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        per_worker = -(-ahead // workers)
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=per_worker)
        dataset = dataset.mp_prefetch(options, worker_init_fn=stay_with_trainer)
    else:
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    return dataset.batch(positions.rows, drop_remainder=True, batch_fn=_collate)


def _collate(crops: list[dict[str, Any]]) -> tuple[UInt8[np.ndarray, "b s s 3"] | None, list[Report]]:
    """Stacks crops to a batch; None if one is missing, in which case `Tally.add` raises an error."""
    images = [crop["image"] for crop in crops]
    missing = any(image is None for image in images)
    return None if missing else np.stack(images), [crop["report"] for crop in crops]
