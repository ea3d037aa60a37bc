"""From a place of the global order to a training crop, whatever lies in the way: broken and small pictures.

All that is random about a place (frame, position, flip) is four numbers drawn from (seed, place). A record that cannot
be used is replaced by the next one of the global order that can: no process need know what another one met.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cdc_jax.data.sharding import GlobalOrder
from cdc_jax.data.sources import PictureSource
from cdc_jax.errors import ImageError
from cdc_jax.io.images import Picture

CACHED_RECORDS, CACHED_BYTES = 64, 2**26  # only so small a source is kept in memory, and no more of it
_MAX_UNUSABLE_IN_A_ROW = 1000


@dataclass(frozen=True)
class Report:
    """How a crop came about.

    Attributes:
      name: of the picture; "" where none was found.
      read: records read for it, itself included.
      broken: (record, message) of those that are broken.
      small: names of those that are smaller than the crop and were skipped.
      upscaled: whether the picture was smaller than the crop and was scaled up.
    """

    name: str
    read: int
    broken: tuple[tuple[int, str], ...]
    small: tuple[str, ...]
    upscaled: bool


@dataclass(frozen=True)
class CropReader:
    """place ↦ {"image": uint8 [s, s, 3], "report": Report}; `image` is None where no record in reach can be used.

    Attributes:
      source: of the pictures.
      order: of the records.
      seed: of the draws.
      size: s, side of the crops in pixels.
      flip: mirror half of them.
      upscale: what happens to smaller pictures: True scales them up, False skips them.
    """

    source: PictureSource
    order: GlobalOrder
    seed: int
    size: int
    flip: bool
    upscale: bool
    _cache: dict[tuple[int, int], Picture] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, place: int) -> dict[str, object]:
        frame_draw, *draws = np.random.default_rng([self.seed, place]).random(4)
        frame = int(frame_draw * self.source.frames)
        broken, small = [], []
        # Two epochs' worth of places holds every record at least once.
        attempts = min(2 * self.order.records, _MAX_UNUSABLE_IN_A_ROW)
        for attempt in range(attempts):
            record = self.order[place + attempt]
            try:
                picture = self._read(record, frame)
            except ImageError as error:
                broken.append((record, str(error)))
                continue
            is_small = min(picture.shape[:2]) < self.size
            if is_small and not self.upscale:
                small.append(self.source.name(record, frame))
                continue
            name = self.source.name(record, frame)
            report = Report(name, attempt + 1, tuple(broken), tuple(small), is_small)
            return {"image": crop_at(picture, self.size, *draws, flip=self.flip), "report": report}
        return {"image": None, "report": Report("", attempts, tuple(broken), tuple(small), False)}

    def _read(self, record: int, frame: int) -> Picture:
        """From memory where the source is small enough to stay there."""
        picture = self._cache.get((record, frame))
        if picture is None:
            picture = self.source.read(record, frame)
            if len(self.source) <= CACHED_RECORDS:
                cached_bytes = sum(other.nbytes for other in list(self._cache.values()))
                if cached_bytes + picture.nbytes <= CACHED_BYTES:
                    self._cache[record, frame] = picture
        return picture


def crop_at(
    picture: Picture, size: int, top: float, left: float, mirror: float, *, flip: bool
) -> UInt8[np.ndarray, "s s 3"]:
    """A square crop; a picture with a side below `size` is scaled up first (bicubic) so that its short side is `size`.

    Args:
      picture: uint8 [h, w, 3].
      size: s in pixels.
      top, left: in [0, 1): where, from the first possible position to the last.
      mirror: in [0, 1): below a half the crop is mirrored, if `flip`.
    """
    height, width, _ = picture.shape
    scale = max(1.0, size / min(height, width))
    scaled_height, scaled_width = max(size, round(height * scale)), max(size, round(width * scale))
    y, x = int(top * (scaled_height - size + 1)), int(left * (scaled_width - size + 1))
    if scale == 1.0:
        crop = picture[y : y + size, x : x + size]
    else:  # only what is needed: a picture of one row would else grow without bounds
        rows, columns = height / scaled_height, width / scaled_width
        box = (x * columns, y * rows, min((x + size) * columns, width), min((y + size) * rows, height))
        crop = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box=box))
    return np.ascontiguousarray(crop[:, ::-1] if flip and mirror < 0.5 else crop)
