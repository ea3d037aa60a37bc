"""Vimeo-90k septuplets: records of seven consecutive frames, listed in a text file.

    ROOT/sep_trainlist.txt                      one septuplet per line, such as 00001/0266
    ROOT/sequences/00001/0266/im1.png … im7.png

This is the layout of the archive `vimeo_septuplet` of Xue et al. 2019, "Video Enhancement with Task-Oriented Flow".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cdc_jax.errors import ConfigError
from cdc_jax.io.images import Image, load_image

TRAINING_LIST = "sep_trainlist.txt"
VALIDATION_SEPTUPLETS = 8


@dataclass(frozen=True)
class VimeoSeptuplets:
    """A source (see `sources.ImageSource`) whose records have seven frames.

    Attributes:
      root: the data set's folder.
      septuplets: names from the list file, such as 00001/0266.
      frames: 7, the number of images per record.
    """

    root: str
    septuplets: Sequence[str]
    frames: int = 7

    def __len__(self) -> int:
        return len(self.septuplets)

    def name(self, record: int, frame: int) -> str:
        """Path of a frame below `sequences`, such as 00001/0266/im4.png for frame 3."""
        return f"{self.septuplets[record]}/im{frame + 1}.png"

    def read(self, record: int, frame: int) -> Image:
        """Reads a frame, uint8 [h, w, 3]. Raises ImageError if it is missing or corrupt."""
        return load_image(os.path.join(self.root, "sequences", self.name(record, frame)))[0]


def find_septuplets(root: str, list_file: str, *, setting: str) -> VimeoSeptuplets:
    """The septuplets in a list file.

    Args:
      root: the data set's folder.
      list_file: the list's path, or its name in the data set's folder.
      setting: the name of the setting that it comes from, for messages.

    Raises:
      ConfigError: the folder or list does not exist, the list is empty, or its first septuplet is not in the folder.
    """
    sequences = os.path.join(root, "sequences")
    if not root or not os.path.isdir(sequences):
        raise ConfigError(
            f"data.path is {root!r}, which does not contain Vimeo-90k: unpack vimeo_septuplet.zip and name the folder "
            f"with {TRAINING_LIST} and sequences/ in it."
        )
    path = next((p for p in (list_file, os.path.join(root, list_file)) if os.path.isfile(p)), None)
    if path is None:
        raise ConfigError(f"{setting} is {list_file!r}, which is neither a file nor the name of one in {root}.")
    with open(path, encoding="utf-8", errors="replace") as lines:
        septuplets = [line.strip().strip("/") for line in lines if line.strip()]
    if not septuplets:
        raise ConfigError(f"{setting} is {list_file!r}, which lists no septuplets.")
    if not os.path.isdir(os.path.join(sequences, septuplets[0])):
        raise ConfigError(f"{setting} is {list_file!r}, but its first septuplet {septuplets[0]} is not in {sequences}.")
    return VimeoSeptuplets(root, septuplets)


def without(training: VimeoSeptuplets, validation: VimeoSeptuplets) -> VimeoSeptuplets:
    """The training septuplets that are not validation septuplets."""
    measured = set(validation.septuplets)
    return VimeoSeptuplets(training.root, [name for name in training.septuplets if name not in measured])
