"""Sources of image files: folders, searched recursively, and the photographs that come with scikit-image."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.io import image_folders
from cdc_jax.io.images import Image, load_image

# The photographs of everyday scenes among scikit-image's images (licenses: docs/images.md). Drawings, scanned text,
# tiny images, and images from microscopes and space telescopes are left out.
SCIKIT_IMAGE_PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)


@dataclass(frozen=True)
class ImageFiles:
    """A source (see `sources.ImageSource`) of image files.

    Attributes:
      root: the folder that the names are relative to.
      names: the files' paths below the root, with forward slashes.
      frames: 1, the number of images per record.
    """

    root: str
    names: Sequence[str]
    frames: int = 1

    def __len__(self) -> int:
        return len(self.names)

    def name(self, record: int, frame: int = 0) -> str:
        """The file's path below the root."""
        return self.names[record]

    def read(self, record: int, frame: int = 0) -> Image:
        """Reads an image, uint8 [h, w, 3]. Raises ImageError if the file is missing, corrupt or not an image."""
        return load_image(os.path.join(self.root, self.names[record]))[0]


@dataclass(frozen=True)
class ImageFolders:
    """A source of the image files of several folders, one folder after another.

    Attributes:
      folders: the folders. Image names begin with only the last component of the folder's path.
      frames: 1, the number of images per record.
    """

    folders: Sequence[ImageFiles]
    frames: int = 1

    def __len__(self) -> int:
        return sum(map(len, self.folders))

    def name(self, record: int, frame: int = 0) -> str:
        """The folder's name and the file's path below it."""
        files, record = self._locate(record)
        return f"{os.path.basename(os.path.normpath(files.root))}/{files.name(record)}"

    def read(self, record: int, frame: int = 0) -> Image:
        """Reads an image, like `ImageFiles.read`."""
        files, record = self._locate(record)
        return files.read(record)

    def _locate(self, record: int) -> tuple[ImageFiles, int]:
        for files in self.folders:
            if record < len(files):
                return files, record
            record -= len(files)
        raise IndexError(record)


def find_images(folder: str | os.PathLike[str], *, setting: str) -> ImageFiles:
    """The images below a folder (`cdc_jax.io.image_folders.find_images`), sorted by name.

    Args:
      folder: the folder to search.
      setting: the name of the setting that it comes from, for messages.

    Raises:
      ConfigError: the folder does not exist or contains no image.
    """
    if not os.path.isdir(folder):
        raise ConfigError(f"{setting} is {os.fspath(folder)!r}, which is not a folder.")
    names, _ = image_folders.find_images(folder)
    if not names:
        raise ConfigError(f"{setting} is {os.fspath(folder)!r}, which contains no images.")
    return ImageFiles(os.fspath(folder), names)


def scikit_image_photographs() -> ImageFiles:
    """The photographs of the installed scikit-image.

    Raises:
      CdcError: the package, or one of its images, is not installed.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise CdcError("The demo's photographs come with scikit-image: pip install '.[demo]'.")
    folder = Path(spec.origin).parent / "data"
    missing = [name for name in SCIKIT_IMAGE_PHOTOGRAPHS if not (folder / name).is_file()]
    if missing:
        raise CdcError(f"The installed scikit-image lacks {missing[0]}; install scikit-image 0.25 or 0.26.")
    return ImageFiles(str(folder), SCIKIT_IMAGE_PHOTOGRAPHS)


def split_by_name(files: ImageFiles, validation: str) -> tuple[ImageFiles, ImageFiles]:
    """Separates the validation image from the training images.

    Args:
      files: all images.
      validation: the validation image's file name, or its path below the root.

    Returns:
      (training images, validation image).

    Raises:
      ConfigError: no image has that name, or several have it.
    """
    chosen = [name for name in files.names if name == validation] or [
        name for name in files.names if name.rpartition("/")[2] == validation
    ]
    if not chosen:
        raise ConfigError(f"data.validation is {validation!r}, but no image of the source has that name.")
    if len(chosen) > 1:
        raise ConfigError(
            f"data.validation is {validation!r}, the name of {len(chosen)} images; give the path, such as {chosen[0]}."
        )
    rest = [name for name in files.names if name != chosen[0]]
    return ImageFiles(files.root, rest), ImageFiles(files.root, chosen)


def without_folder(files: ImageFiles, folder: str | os.PathLike[str]) -> ImageFiles:
    """The images that are not below `folder`."""
    inside = os.path.relpath(os.path.realpath(folder), os.path.realpath(files.root)).replace(os.sep, "/")
    if inside == ".":
        return ImageFiles(files.root, [])
    return ImageFiles(files.root, [name for name in files.names if not name.startswith(f"{inside}/")])
