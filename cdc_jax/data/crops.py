"""From a position in the global order to a training crop, whatever lies in the way: corrupt and small images.

All that is random about a position (frame, corner, flip) is four numbers drawn from (seed, position). A record that
cannot be used is replaced by the next one of the global order that can: no process need know what another one met.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PILImage

from cdc_jax.data.sharding import GlobalOrder
from cdc_jax.data.sources import ImageSource
from cdc_jax.errors import ImageError
from cdc_jax.io.images import Image

_MAX_UNUSABLE_IN_A_ROW = 1000


@dataclass(frozen=True)
class Report:
    """How a crop came about.

    Attributes:
      name: of the image; "" where none was found.
      read: records read for it, itself included.
      corrupt: (record, message) of those that are corrupt.
      small: names of those that are smaller than the crop and were skipped.
      upscaled: whether the image was smaller than the crop and was scaled up.
    """

    name: str
    read: int
    corrupt: tuple[tuple[int, str], ...]
    small: tuple[str, ...]
    upscaled: bool


@dataclass(frozen=True)
class CropReader:
    """position ↦ {"image": uint8 [s, s, 3], "report": Report}; `image` is None where no record in reach can be used.

    Attributes:
      source: of the images.
      order: of the records.
      seed: of the draws.
      size: s, side of the crops in pixels.
      flip: mirror half of them.
      upscale: what happens to smaller images: True scales them up, False skips them.
      max_downscale: half of the crops are cut up to this many times as large, where the image allows, and scaled down.
      cache_bytes: of decoded images that are kept in memory.
    """

    source: ImageSource
    order: GlobalOrder
    seed: int
    size: int
    flip: bool
    upscale: bool
    max_downscale: float = 1.0
    cache_bytes: int = 64 << 20
    _cache: dict[tuple[int, int], Image] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, position: int) -> dict[str, object]:
        random = np.random.default_rng([self.seed, position])
        frame_draw, *draws = random.random(4)
        scale_draw = random.random()
        frame = int(frame_draw * self.source.frames)
        corrupt, small = [], []
        # Two epochs' worth of positions holds every record at least once.
        attempts = min(2 * self.order.records, _MAX_UNUSABLE_IN_A_ROW)
        for attempt in range(attempts):
            record = self.order[position + attempt]
            try:
                image = self._read(record, frame)
            except ImageError as error:
                corrupt.append((record, str(error)))
                continue
            is_small = min(image.shape[:2]) < self.size
            if is_small and not self.upscale:
                small.append(self.source.name(record, frame))
                continue
            name = self.source.name(record, frame)
            report = Report(name, attempt + 1, tuple(corrupt), tuple(small), is_small)
            side = self._side(image, scale_draw)
            crop = crop_at(image, side, *draws, flip=self.flip)
            return {"image": _scaled_to(crop, self.size), "report": report}
        return {"image": None, "report": Report("", attempts, tuple(corrupt), tuple(small), False)}

    def _read(self, record: int, frame: int) -> Image:
        """From memory where it was kept: the first images that are read, up to `cache_bytes`."""
        image = self._cache.get((record, frame))
        if image is None:
            image = self.source.read(record, frame)
            cached_bytes = sum(other.nbytes for other in list(self._cache.values()))
            if cached_bytes + image.nbytes <= self.cache_bytes:
                self._cache[record, frame] = image
        return image

    def _side(self, image: Image, draw: float) -> int:
        """Of the square to cut: the crop's in half of the cases, else uniform up to `max_downscale` times that."""
        most = min(self.max_downscale * self.size, *image.shape[:2])
        if draw < 0.5 or most <= self.size:
            return self.size
        return self.size + int((2 * draw - 1) * (most - self.size + 1))


def _scaled_to(crop: UInt8[np.ndarray, "n n 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    if len(crop) == size:
        return crop
    return np.asarray(PILImage.fromarray(crop).resize((size, size), PILImage.Resampling.LANCZOS))


def crop_at(
    image: Image, size: int, top: float, left: float, mirror: float, *, flip: bool
) -> UInt8[np.ndarray, "s s 3"]:
    """A square crop; an image with a side below `size` is scaled up first (bicubic) so that its short side is `size`.

    Args:
      image: uint8 [h, w, 3].
      size: s in pixels.
      top, left: in [0, 1): where, from the first possible position to the last.
      mirror: in [0, 1): below a half the crop is mirrored, if `flip`.
    """
    height, width, _ = image.shape
    scale = max(1.0, size / min(height, width))
    scaled_height, scaled_width = max(size, round(height * scale)), max(size, round(width * scale))
    y, x = int(top * (scaled_height - size + 1)), int(left * (scaled_width - size + 1))
    if scale == 1.0:
        crop = image[y : y + size, x : x + size]
    else:  # only what is needed: an image of one row would else grow without bounds
        rows, columns = height / scaled_height, width / scaled_width
        box = (x * columns, y * rows, min((x + size) * columns, width), min((y + size) * rows, height))
        crop = np.asarray(PILImage.fromarray(image).resize((size, size), PILImage.Resampling.BICUBIC, box=box))
    return np.ascontiguousarray(crop[:, ::-1] if flip and mirror < 0.5 else crop)
