"""The log of a training run: `metrics.jsonl` (one JSON object per line, each with its step) and TensorBoard files.

Object stores support neither append nor rename, so the log is written locally. If the run's folder is in an object
store, `publish` copies the log there at every checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from etils import epath

from cdc_jax.errors import CdcError
from cdc_jax.io.files import copy_tree, is_remote, reraise_as, write_atomically
from cdc_jax.io.images import Image
from cdc_jax.training.old_names import current_metrics

_METRICS = "metrics.jsonl"
_TENSORBOARD = "tensorboard"


def _writing(method):
    """Turns a failure to write into a one-line CdcError."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        with reraise_as(f"Cannot write the log in {self.folder}", self.folder):
            return method(self, *args, **kwargs)

    return wrapper


class RunLog:
    """The log of the run in `workdir`; a `with` block closes it. Methods raise CdcError if they cannot read or write.

    Args:
      workdir: the run's folder, local or in an object store.
      active: whether this process writes. Only process 0 of a run does.
      local: the local folder to write to; None: `workdir` itself if it is local, else a temporary folder.

    Attributes:
      folder: the local folder that is written to.
    """

    def __init__(self, workdir: epath.PathLike, *, active: bool = True, local: str | Path | None = None):
        self._workdir = epath.Path(workdir)
        self.folder = Path(local or (tempfile.mkdtemp(prefix="cdc-run-") if is_remote(workdir) else workdir))
        self._active = active
        self._latest: dict[str, float] = {}
        self._tensorboard = None
        if self._must_copy:
            with reraise_as(f"Cannot read the log in {workdir}", workdir):
                if (self._workdir / _METRICS).is_file():
                    (self.folder / _METRICS).write_bytes((self._workdir / _METRICS).read_bytes())

    @property
    def _must_copy(self) -> bool:
        return epath.Path(self.folder) != self._workdir

    @_writing
    def drop_after(self, step: int) -> None:
        """Drops what an interrupted run logged after `step`, from which it resumes. −1 drops everything."""
        if not self._active:
            return
        kept = [line for line in self.read() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.folder / _METRICS, text.encode())
        if importlib.util.find_spec("tensorboardX") is not None:
            self._tensorboard = EventFile(self.folder / _TENSORBOARD, step + 1)

    @_writing
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a step's metrics by name."""
        self._latest.update(values)
        if not self._active:
            return
        with (self.folder / _METRICS).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._tensorboard is not None:
            self._tensorboard.add_scalars(step, values)
            self._tensorboard.flush()

    @_writing
    def write_images(self, step: int, images: Mapping[str, Image]) -> None:
        """Writes images, by title, for TensorBoard."""
        if self._tensorboard is not None:
            for name, image in images.items():
                self._tensorboard.add_image(step, name, image)

    def add_text(self, name: str, lines: Sequence[str]) -> epath.Path:
        """Writes a text file into the run's folder, at once and from any process. Returns its path."""
        path = self._workdir / f"{name}.txt"
        with reraise_as(f"Cannot write {path}", path):
            path.write_text("".join(f"{line}\n" for line in lines))
        return path

    @_writing
    def publish(self) -> None:
        """Makes everything written so far visible in the run's folder."""
        if self._tensorboard is not None:
            self._tensorboard.flush()
        if not (self._active and self._must_copy):
            return
        copy_tree(self.folder, self._workdir)

    @_writing
    def close(self) -> None:
        """Publishes the log and closes its files."""
        self.publish()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind, *_) -> None:
        with contextlib.suppress(*([CdcError] if kind else [])):  # report the error that ended the run, not a later one
            self.close()

    def read(self) -> list[dict]:
        """All complete lines: a step and its metrics, under their current names."""
        path, lines = self.folder / _METRICS, []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                lines.append(current_metrics(json.loads(line)))
            except ValueError:
                continue
        return lines

    def summary(self) -> dict[str, str]:
        """The latest values for the progress bar, formatted, by short name."""
        names = {"loss": "loss", "bpp": "bpp", "validation_psnr_db_1": "PSNR"}
        shown = {short: f"{self._latest[name]:.3g}" for name, short in names.items() if name in self._latest}
        if "images_per_second" in self._latest:
            shown["img/s"] = f"{self._latest['images_per_second']:.3g}"
            shown["data"] = f"{self._latest['data_wait_share']:.0%}"
        return shown


class EventFile:
    """A TensorBoard event file. Writes are synchronous, so that a failure raises here and not in another thread.

    Needs tensorboardX.

    Args:
      folder: the folder, created if it does not exist.
      first_step: TensorBoard hides the values of older files in the folder from this step on.

    Raises:
      OSError: the file cannot be written. All methods raise it.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a step's metrics by name."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(step, summary=scalar(name, value))

    def add_image(self, step: int, title: str, image: Image) -> None:
        """Writes an image under a title."""
        from tensorboardX.summary import image as image_summary

        self._add(step, summary=image_summary(title, image, dataformats="HWC"))

    def flush(self) -> None:
        """Makes everything written so far visible to readers."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def _add(self, step: int, **content) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
