"""The images that a configuration names: sources with random access, for training and for validation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ml_collections

from cdc_jax.data.folders import (
    ImageFiles,
    ImageFolders,
    find_images,
    scikit_image_photographs,
    split_by_name,
    without_folder,
)
from cdc_jax.data.tfds_source import open_tfds
from cdc_jax.data.vimeo import TRAINING_LIST, VALIDATION_SEPTUPLETS, VimeoSeptuplets, find_septuplets, without
from cdc_jax.errors import ConfigError
from cdc_jax.io.files import is_remote
from cdc_jax.io.images import Image


class ImageSource(Protocol):
    """Records numbered from 0, in the same order on every process. Methods may be called from many threads at once.

    Attributes:
      frames: number of images per record; training draws one of them.
    """

    frames: int

    def __len__(self) -> int: ...

    def name(self, record: int, frame: int) -> str:
        """The image's name in logs, found without reading it."""

    def read(self, record: int, frame: int) -> Image:
        """Reads an image, uint8 [h, w, 3]. Raises ImageError, which names the image, if it is corrupt."""


@dataclass(frozen=True)
class Sources:
    """The training images, and the validation images; None if there are none."""

    training: ImageSource
    validation: ImageSource | None


def open_sources(config: ml_collections.ConfigDict) -> Sources:
    """Finds the images of `config.data` without reading them.

    `data.validation` names one image of a folder, a Vimeo-90k list, or a TFDS split; for any source, it may also be a
    folder of images. Validation images are excluded from the training images.

    Raises:
      ConfigError: a setting refers to something that does not exist, or no image is left for training.
      CdcError: data or packages are missing; the message names the command to run.
    """
    data = config.data
    from_folder = None
    if data.validation and os.path.isdir(data.validation):
        from_folder = find_images(data.validation, setting="data.validation")
    open_source = {"folder": _files, "scikit-image": _files, "vimeo90k": _vimeo, "tfds": _tfds}.get(data.source)
    if open_source is None:
        raise ConfigError(f"data.source is {data.source!r}, which is unknown.")
    training, validation = open_source(data, "" if from_folder else data.validation)
    if from_folder and data.source in ("folder", "scikit-image"):
        training = _without_folder(training, data.validation)
    if not len(training):
        raise ConfigError("data.validation leaves no image of the source to train on.")
    return Sources(training, from_folder or validation)


def validation_images(config: ml_collections.ConfigDict, limit: int | None = None) -> list[tuple[str, Image]]:
    """Reads the validation images; for Vimeo-90k septuplets, the middle frames.

    Args:
      config: the run's settings.
      limit: largest number of images; None: all.

    Returns:
      (name, uint8 [h, w, 3]) of each image; [] if `data.validation` is empty.

    Raises:
      ConfigError, CdcError: see `open_sources`.
      ImageError: an image is corrupt.
    """
    if not config.data.validation:
        return []
    source = open_sources(config).validation
    frame = source.frames // 2
    return [(source.name(record, frame), source.read(record, frame)) for record in range(len(source))[:limit]]


def check_workdir(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Raises ConfigError if the run's folder is inside an image folder that it reads."""
    data = config.data
    paths = data.path.split(",") if data.source == "folder" else []
    for setting, folder in (*(("data.path", path) for path in paths), ("data.validation", data.validation)):
        if not os.path.isdir(folder) or is_remote(workdir):
            continue
        if Path(workdir).resolve().is_relative_to(Path(folder).resolve()):
            raise ConfigError(
                f"--workdir is {os.fspath(workdir)!r}, inside {setting} ({folder}): the images that a run writes "
                "would be taken for its data; name a folder elsewhere."
            )


def _without_folder(files: ImageFiles | ImageFolders, folder: str) -> ImageFiles | ImageFolders:
    if isinstance(files, ImageFiles):
        return without_folder(files, folder)
    return ImageFolders([without_folder(each, folder) for each in files.folders])


def _files(data: ml_collections.ConfigDict, validation: str):
    if data.source == "scikit-image":
        files = scikit_image_photographs()
    else:
        paths = [path for path in data.path.split(",") if path] or [data.path]
        if len(paths) > 1:
            if validation:
                raise ConfigError("With several folders in data.path, data.validation must be a folder of images.")
            return ImageFolders([find_images(path, setting="data.path") for path in paths]), None
        files = find_images(paths[0], setting="data.path")
    return split_by_name(files, validation) if validation else (files, None)


def _vimeo(data: ml_collections.ConfigDict, validation: str):
    training = find_septuplets(data.path, data.list_file or TRAINING_LIST, setting="data.list_file")
    if not validation:
        return training, None
    listed = find_septuplets(data.path, validation, setting="data.validation")
    measured = VimeoSeptuplets(listed.root, listed.septuplets[:VALIDATION_SEPTUPLETS])
    return without(training, measured), measured


def _tfds(data: ml_collections.ConfigDict, validation: str):
    return open_tfds(data.name, data.path, data.split, validation)
