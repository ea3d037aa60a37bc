"""What the configuration's pictures are: records with random access, and the ones held out for measuring."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ml_collections

from cdc_jax.data.folders import (
    PictureFiles,
    PictureFolders,
    find_pictures,
    scikit_image_photographs,
    split_by_name,
    without_folder,
)
from cdc_jax.data.tfds_source import open_tfds
from cdc_jax.data.vimeo import HELD_OUT_SEPTUPLETS, TRAINING_LIST, VimeoSeptuplets, find_septuplets, without
from cdc_jax.errors import ConfigError
from cdc_jax.io.files import is_remote
from cdc_jax.io.images import Picture


class PictureSource(Protocol):
    """Records numbered from 0, in an order that every process agrees on. Reads may come from many threads at once.

    Attributes:
      frames: pictures per record; training draws one of them.
    """

    frames: int

    def __len__(self) -> int: ...

    def name(self, record: int, frame: int) -> str:
        """What logs call the picture; cheap."""

    def read(self, record: int, frame: int) -> Picture:
        """uint8 [h, w, 3]. Raises ImageError, naming the picture, where it is broken."""


@dataclass(frozen=True)
class Sources:
    """The pictures to train on and those to measure on, None where there are none."""

    training: PictureSource
    held_out: PictureSource | None


def open_sources(config: ml_collections.ConfigDict) -> Sources:
    """Finds the pictures of `config.data`; no picture is read.

    `held_out` names one picture of a folder, a Vimeo-90k list, a TFDS split, or for any source a folder of pictures.
    What is held out is never among the training pictures.

    Raises:
      ConfigError: a setting names what is not there, or nothing is left to train on.
      CdcError: data or packages are missing; the message says what to run.
    """
    data = config.data
    from_folder = None
    if data.held_out and os.path.isdir(data.held_out):
        from_folder = find_pictures(data.held_out, setting="data.held_out")
    open_source = {"folder": _files, "scikit-image": _files, "vimeo90k": _vimeo, "tfds": _tfds}.get(data.source)
    if open_source is None:
        raise ConfigError(f"data.source is {data.source!r}, which is unknown")
    training, held_out = open_source(data, "" if from_folder else data.held_out)
    if from_folder and data.source in ("folder", "scikit-image"):
        training = _without_folder(training, data.held_out)
    if not len(training):
        raise ConfigError("data.held_out leaves no picture of the source to train on")
    return Sources(training, from_folder or held_out)


def held_out_pictures(config: ml_collections.ConfigDict, limit: int | None = None) -> list[tuple[str, Picture]]:
    """(name, uint8 [h, w, 3]) of the held-out pictures, the first `limit` of them; of a septuplet the middle frame.

    Raises:
      ConfigError, CdcError: as `open_sources`.
      ImageError: one of them is broken.
    """
    if not config.data.held_out:
        return []
    source = open_sources(config).held_out
    frame = source.frames // 2
    return [(source.name(record, frame), source.read(record, frame)) for record in range(len(source))[:limit]]


def check_workdir(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Raises ConfigError where a run's own pictures would lie among those that it reads."""
    data = config.data
    paths = data.path.split(",") if data.source == "folder" else []
    for setting, folder in (*(("data.path", path) for path in paths), ("data.held_out", data.held_out)):
        if not os.path.isdir(folder) or is_remote(workdir):
            continue
        if Path(workdir).resolve().is_relative_to(Path(folder).resolve()):
            raise ConfigError(
                f"--workdir is {os.fspath(workdir)!r}, inside {setting} ({folder}): the pictures that a run writes "
                "would be taken for its data; name a folder elsewhere"
            )


def _without_folder(files: PictureFiles | PictureFolders, folder: str) -> PictureFiles | PictureFolders:
    if isinstance(files, PictureFiles):
        return without_folder(files, folder)
    return PictureFolders([without_folder(each, folder) for each in files.folders])


def _files(data: ml_collections.ConfigDict, held_out: str):
    if data.source == "scikit-image":
        files = scikit_image_photographs()
    else:
        paths = [path for path in data.path.split(",") if path] or [data.path]
        if len(paths) > 1:
            if held_out:
                raise ConfigError("with several folders in data.path, data.held_out must be a folder of images")
            return PictureFolders([find_pictures(path, setting="data.path") for path in paths]), None
        files = find_pictures(data.path, setting="data.path")
    return split_by_name(files, held_out) if held_out else (files, None)


def _vimeo(data: ml_collections.ConfigDict, held_out: str):
    training = find_septuplets(data.path, data.list_file or TRAINING_LIST, setting="data.list_file")
    if not held_out:
        return training, None
    listed = find_septuplets(data.path, held_out, setting="data.held_out")
    measured = VimeoSeptuplets(listed.root, listed.septuplets[:HELD_OUT_SEPTUPLETS])
    return without(training, measured), measured


def _tfds(data: ml_collections.ConfigDict, held_out: str):
    return open_tfds(data.name, data.path, data.split, held_out)
