"""The training crop at each position of the global order, with replacements for corrupt and small images.

The random numbers of a position (frame, corner, flip, scale) depend only on (seed, position). An unusable record is
replaced by the next usable one in the global order, so processes need not exchange which records were unusable.
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
    """The image that a crop is from, and the records that were skipped before it.

    Attributes:
      name: the image's name; "" if no usable one was found.
      read: number of records that were read, including the image's own.
      corrupt: (record, message) of each corrupt record.
      small: names of images that were skipped because they are smaller than the crop.
      upscaled: whether the image is smaller than the crop and was scaled up.
    """

    name: str
    read: int
    corrupt: tuple[tuple[int, str], ...]
    small: tuple[str, ...]
    upscaled: bool


@dataclass(frozen=True)
class CropReader:
    """A callable: position ↦ {"image": uint8 [s, s, 3], "report": Report}.

    `image` is None if none of the next records (two epochs, at most 1000) is usable.

    Attributes:
      source: the images.
      order: the global order of the records.
      seed: seed of the random numbers.
      size: s, side of the crops in pixels.
      flip: whether to mirror half of the crops.
      upscale: whether to scale up images that are smaller than the crop; otherwise they are skipped.
      max_downscale: half of the crops are cut up to this factor larger, if the image allows, and scaled down.
      cache_bytes: largest total size of decoded images kept in memory.
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
        # The positions of two epochs contain every record at least once.
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
        """The decoded image. The first images that are read are cached, up to `cache_bytes`."""
        image = self._cache.get((record, frame))
        if image is None:
            image = self.source.read(record, frame)
            cached_bytes = sum(other.nbytes for other in list(self._cache.values()))
            if cached_bytes + image.nbytes <= self.cache_bytes:
                self._cache[record, frame] = image
        return image

    def _side(self, image: Image, draw: float) -> int:
        """Side of the square to cut: the crop's for half of the draws, else uniform up to `max_downscale` times it."""
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
    """A square crop. An image with a side below `size` is first scaled up (bicubic) so that its short side is `size`.

    Args:
      image: the image.
      size: s, side of the crop in pixels.
      top, left: position of the crop, in [0, 1): from the first possible one to the last.
      mirror: in [0, 1); values below ½ mirror the crop, if `flip` is set.
      flip: whether crops may be mirrored.
    """
    height, width, _ = image.shape
    scale = max(1.0, size / min(height, width))
    scaled_height, scaled_width = max(size, round(height * scale)), max(size, round(width * scale))
    y, x = int(top * (scaled_height - size + 1)), int(left * (scaled_width - size + 1))
    if scale == 1.0:
        crop = image[y : y + size, x : x + size]
    else:  # scale up only the part for the crop: a whole image with one row would take too much memory
        rows, columns = height / scaled_height, width / scaled_width
        box = (x * columns, y * rows, min((x + size) * columns, width), min((y + size) * rows, height))
        crop = np.asarray(PILImage.fromarray(image).resize((size, size), PILImage.Resampling.BICUBIC, box=box))
    return np.ascontiguousarray(crop[:, ::-1] if flip and mirror < 0.5 else crop)
