"""Pictures → batches of random crops."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8


@dataclasses.dataclass(frozen=True)
class CropBatches:
    """Batch k of random crops. It follows from (seed, k) alone, so a resumed run sees the same data.

    Attributes:
      pictures: uint8 [h, w, 3] each, at least `crop` on both sides.
      crop: side of the crops in pixels.
      batch_size: crops per batch.
      flip: mirror half of them.
      seed: of the draws.
    """

    pictures: list[UInt8[np.ndarray, "h w 3"]]
    crop: int
    batch_size: int
    flip: bool
    seed: int

    def batch(self, step: int) -> UInt8[np.ndarray, "b s s 3"]:
        """The batch of step k: pictures and places drawn uniformly."""
        crops = []
        for place in range(self.batch_size):
            random = np.random.default_rng([self.seed, step, place])
            picture = self.pictures[random.integers(len(self.pictures))]
            top, left = (random.integers(0, side - self.crop + 1) for side in picture.shape[:2])
            crop = picture[top : top + self.crop, left : left + self.crop]
            crops.append(crop[:, ::-1] if self.flip and random.random() < 0.5 else crop)
        return np.stack(crops)
