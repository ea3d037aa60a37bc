"""TensorBoard's event file, written as we go: what cannot be written is said at once, and not by a hanging thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8


class EventFile:
    """One file of events in a folder. Needs tensorboardX.

    Args:
      folder: is made where it is missing.
      first_step: what other files of the folder have from this step on is hidden.

    Raises:
      OSError: here and in all methods, the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A step's figures by name."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(step, summary=scalar(name, value))

    def add_picture(self, step: int, title: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """A picture under its title."""
        from tensorboardX.summary import image

        self._add(step, summary=image(title, picture, dataformats="HWC"))

    def flush(self) -> None:
        """Makes all of it visible to readers."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes, and closes the file."""
        self._writer.close()

    def _add(self, step: int, **content) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
