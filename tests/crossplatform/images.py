"""More than two hundred test images, most of them very unlike photographs.

All but three are at most 64×64, one cell of z, so that one compiled encoder serves them.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "h w 3"]

NUM_IMAGES = 210
_LARGE = ((65, 127), (128, 100), (70, 66))  # two cells by two


def images() -> list[Image]:
    """The same NUM_IMAGES images in every run with the same NumPy."""
    rng = np.random.default_rng(4)
    found = [*_constants(rng), *_patterns(), *_photographs(rng)]
    found += [rng.integers(0, 256, (*size, 3)) for size in _LARGE]
    while len(found) < NUM_IMAGES:
        found.append(_random(rng, len(found) % 4, tuple(rng.integers(1, 65, 2))))
    return [np.ascontiguousarray(image, np.uint8) for image in found[:NUM_IMAGES]]


def _constants(rng) -> list[np.ndarray]:
    """One color, the extremes among them, from one pixel to a whole cell."""
    colors = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 255), (127, 128, 127), *rng.integers(0, 256, (5, 3))]
    return [np.full((*size, 3), color) for color in colors for size in ((1, 1), (64, 64), (1, 64))]


def _patterns() -> list[np.ndarray]:
    """Checkerboards and stripes, from Nyquist's frequency down, and single edges and points."""
    row, column = np.mgrid[:64, :64]
    found = []
    for period in (1, 2, 4, 8, 16):
        for wave in (row // period + column // period, row // period, column // period):
            found += [wave % 2 * 255, (wave + 1) % 2 * 255]
    for place in (0, 1, 15, 16, 31, 62):
        found += [(column > place) * 255, (row > place) * 255, ((row == place) & (column == place)) * 255]
    found += [row * 4, (row + column) * 2, 255 - column * 4]
    return [np.repeat(image[:, :, None], 3, axis=2) for image in found]


def _photographs(rng) -> list[np.ndarray]:
    """Crops of scikit-image's photographs; none if it is not installed."""
    try:
        import skimage
    except ImportError:
        return []
    from PIL import Image as PILImage

    found = []
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        photograph = np.asarray(PILImage.open(Path(skimage.__file__).parent / "data" / name).convert("RGB"))
        for _ in range(10):
            top, left = (int(rng.integers(side - 64)) for side in photograph.shape[:2])
            found.append(photograph[top : top + 64, left : left + 64])
    return found


def _random(rng, kind: int, size: tuple[int, int]) -> np.ndarray:
    if kind == 0:  # uniform noise
        return rng.integers(0, 256, (*size, 3))
    if kind == 1:  # the extremes alone
        return rng.integers(0, 2, (*size, 3)) * 255
    if kind == 2:  # noise of few levels around a color
        return np.clip(rng.integers(0, 256, 3) + rng.integers(-3, 4, (*size, 3)), 0, 255)
    waves = np.mgrid[: size[0], : size[1]].transpose(1, 2, 0) @ rng.normal(size=(2, 3)) * 0.2  # smooth
    return 127.5 + 127.5 * np.sin(waves + rng.uniform(0, 6, 3))
