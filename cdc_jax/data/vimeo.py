"""Vimeo-90k septuplets: seven consecutive frames to a record, named by a list file.

    ROOT/sep_trainlist.txt                      one septuplet to a line, such as 00001/0266
    ROOT/sequences/00001/0266/im1.png … im7.png

Source: Xue et al. 2019, "Video Enhancement with Task-Oriented Flow", whose archive `vimeo_septuplet` unpacks to this.
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
    """A source (see `cdc_jax.data.sources`) whose records have seven frames.

    Attributes:
      root: the data set's folder.
      septuplets: names from the list file, such as 00001/0266.
    """

    root: str
    septuplets: Sequence[str]
    frames: int = 7

    def __len__(self) -> int:
        return len(self.septuplets)

    def name(self, record: int, frame: int) -> str:
        """Such as 00001/0266/im4.png for frame 3."""
        return f"{self.septuplets[record]}/im{frame + 1}.png"

    def read(self, record: int, frame: int) -> Image:
        """uint8 [h, w, 3]. Raises ImageError where the frame is missing or corrupt."""
        return load_image(os.path.join(self.root, "sequences", self.name(record, frame)))[0]


def find_septuplets(root: str, list_file: str, *, setting: str) -> VimeoSeptuplets:
    """The septuplets of a list file: a path, or a name in the data set's folder.

    Raises:
      ConfigError: no such folder or list, an empty list, or one that names no septuplet of the folder.
    """
    sequences = os.path.join(root, "sequences")
    if not root or not os.path.isdir(sequences):
        raise ConfigError(
            f"data.path is {root!r}, where Vimeo-90k is not: unpack vimeo_septuplet.zip and name the folder with "
            f"{TRAINING_LIST} and sequences/ in it."
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
    """The septuplets that are not among the validation ones."""
    measured = set(validation.septuplets)
    return VimeoSeptuplets(training.root, [name for name in training.septuplets if name not in measured])
