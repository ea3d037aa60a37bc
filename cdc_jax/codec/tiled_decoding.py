"""Decodes images of any size in tiles, in bounded memory and on several devices.

The whole noisy image x_n is in host memory. At every DDIM step the U-Net predicts one tile per device at a time. Where
tiles overlap, their predictions are averaged with weights that sum to 1. Since x̂₀ = a·prediction + b·x_n, where a and
b depend only on the step, this also averages the tiles' x̂₀. DDIM then advances the whole image by one step.

The softmax of the U-Net's attention covers a tile instead of the image, so the result differs from the image decoded
whole, but is not worse (docs/performance.md). A single tile that covers the image yields the same result. The compiled
programs depend only on the tile's size and the image's width. The number of devices changes the result only by
rounding.

What a tile's steps have in common can be kept until the last step. Otherwise, the same program computes it again at
every step, so the result is the same.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from cdc_jax.codec.batching import Progress
from cdc_jax.codec.decoding import predict, prepare
from cdc_jax.codec.tiling import OVERLAP, Axis
from cdc_jax.codec.unusable_weights import unusable_decoder
from cdc_jax.diffusion.process import NoiseLevel, estimate
from cdc_jax.diffusion.sampler import BLOCK, START, ddim_step, image_noise, sampling_grid
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.io.pixels import to_uint8
from cdc_jax.models.config import LATENT_STRIDE, ModelConfig
from cdc_jax.models.params import Params
from cdc_jax.runtime import programs
from cdc_jax.runtime.free_memory import release_unused
from cdc_jax.runtime.sharding import split_batch

Region = tuple[slice, slice]
Tile = tuple[Region, tuple[Float[np.ndarray, " h"], Float[np.ndarray, " w"]]]  # with the weights of rows and columns

_STRIP = 4096  # pixels of a row that one call advances


def synthesize_in_tiles(*arguments, **settings) -> UInt8[np.ndarray, "h w 3"]:
    """`sample_in_tiles` as 8-bit pixels, with the same arguments."""
    return _as_pixels(sample_in_tiles(*arguments, **settings))


def estimates_in_tiles(*arguments, **settings) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields each step's estimate x̂₀ as 8-bit pixels, with the arguments of `sample_in_tiles`.

    The last is `synthesize_in_tiles`' image.
    """
    for _, image in _denoise(*arguments, **settings):
        yield _as_pixels(image)


def sample_in_tiles(
    config: ModelConfig,
    params: Params,
    mesh: Mesh,
    y_hat: Float[np.ndarray, "h/16 w/16 c"],
    **settings,
) -> Float[np.ndarray, "h w 3"]:
    """Decodes ŷ of one image.

    Args:
      config, params: the model's settings, and its weights on every device of the mesh.
      mesh: the devices, each of which computes one tile at a time.
      y_hat: latents; h and w are multiples of 64.
      settings: steps, seed, gamma, eta: as in `Codec.decompress`; tile: largest side of a tile in pixels, a multiple of
        64; overlap: smallest overlap of adjacent tiles in pixels, 128 by default; compute_type: precision of the
        U-Net's products, "float32" or "bfloat16"; quality: from 0 to 1, None in a single-rate model; keep: for
        how many tiles on each device to keep what the steps have in common; progress: called as `progress(done, total)`
        after each tile of each step.

    Returns:
      x̂₀ of the last step, nominally in [−1, 1].
    """
    [*_, (x, _)] = _denoise(config, params, mesh, y_hat, **settings)
    return x


def _denoise(
    config: ModelConfig,
    params: Params,
    mesh: Mesh,
    y_hat: Float[np.ndarray, "h/16 w/16 c"],
    *,
    steps: int,
    seed: int,
    gamma: float,
    eta: float,
    tile: int,
    overlap: int = OVERLAP,
    compute_type: str = "float32",
    quality: float | None = None,
    keep: int = 0,
    progress: Progress | None = None,
) -> Iterator[tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]]]:
    """Yields (x, x̂₀) after each step. The next step overwrites both arrays."""
    height, width = (LATENT_STRIDE * cells for cells in y_hat.shape[:2])
    tiles = _tiles(height, width, tile, overlap)
    seed, gamma, eta, stochastic = np.uint32(seed), np.float32(gamma), np.float32(eta), eta > 0
    x = np.empty((height, width, 3), np.float32)
    for region in _strips(height, width):
        x[region] = programs.call(_start, (region[1].stop - region[1].start,), (seed, gamma, _block(region)))
    predicted = np.empty_like(x)
    inputs = sampling_grid(schedule_for(config), config.prediction, steps)
    network = _Network(config, params, mesh, y_hat, tiles, quality, compute_type, keep=keep)
    done, total = itertools.count(1), steps * len(tiles)
    for k, (time, alpha_bar, alpha_bar_next) in enumerate(zip(*inputs, strict=True)):
        predicted[:] = 0
        for region, (row, column), prediction in network.predictions(x, time):
            predicted[region] += (row[:, None] * column)[..., None] * prediction
            if progress is not None:
                progress(next(done), total)
        numbers = np.float32(alpha_bar), np.float32(alpha_bar_next), seed, eta, np.int32(k)
        for region in _strips(height, width):
            arguments = predicted[region], x[region], *numbers, _block(region)
            x[region], predicted[region] = programs.call(_advance, (config.prediction, stochastic), arguments)
        yield x, predicted


def _as_pixels(x: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    image = np.empty(x.shape, np.uint8)
    for region in _strips(*x.shape[:2]):
        image[region] = programs.call(_to_uint8, (), (x[region],))
    return image


def _tiles(height: int, width: int, tile: int, overlap: int) -> list[Tile]:
    rows, columns = Axis(height, tile, overlap), Axis(width, tile, overlap)
    return [
        ((slice(*row), slice(*column)), (row_weight, column_weight))
        for row, row_weight in zip(rows.spans, rows.weights, strict=True)
        for column, column_weight in zip(columns.spans, columns.weights, strict=True)
    ]


class _Network:
    """The U-Net on the tiles of one image. The arguments are those of `sample_in_tiles`."""

    def __init__(self, config, params, mesh, y_hat, tiles: list[Tile], quality, compute_type, *, keep: int):
        self._config, self._params, self._mesh, self._y_hat = config, params, mesh, y_hat
        self._quality = None if quality is None else np.full(mesh.size, quality, np.float32)
        self._options = {"compute_type": compute_type}
        # Each call computes one tile per device. The last group is filled with some of its tiles again.
        self._groups = [tiles[start : start + mesh.size] for start in range(0, len(tiles), mesh.size)]
        self._keep, self._kept = keep, {}

    def predictions(self, x: Float[np.ndarray, "h w 3"], time: np.float32) -> Iterator[tuple]:
        """Yields (region, weights, prediction) of every tile."""
        for index, group in enumerate(self._groups):
            regions = [region for region, _ in itertools.islice(itertools.cycle(group), self._mesh.size)]
            maps = self._kept.get(index)
            if maps is None:
                maps = self._call(prepare, self._latents(regions), self._quality)
            if index < self._keep:
                self._kept[index] = maps
            noisy = self._split(np.stack([x[region] for region in regions]))
            outputs = np.asarray(self._call(predict, maps, noisy, np.float32(time), self._quality))
            if index == 0:
                release_unused()  # what compiling took
            if not np.isfinite(outputs).all():
                raise unusable_decoder(self._config, self._params, self._latents(regions), self._quality)
            for (region, weights), prediction in zip(group, outputs, strict=False):
                yield region, weights, prediction

    def _call(self, function, *arguments):
        return programs.call(function, (self._config,), (self._params, *arguments), **self._options)

    def _latents(self, regions: list[Region]):
        return self._split(np.stack([self._y_hat[_cells(region)] for region in regions]))

    def _split(self, batch: np.ndarray):
        return jax.device_put(batch, split_batch(self._mesh)) if self._mesh.size > 1 else batch


def _cells(region: Region) -> Region:
    """A tile's region in ŷ."""
    return tuple(slice(side.start // LATENT_STRIDE, side.stop // LATENT_STRIDE) for side in region)


def _strips(height: int, width: int) -> list[Region]:
    """Parts of the image that are as high as a block of noise, and narrow enough to keep temporary arrays small."""
    lefts = range(0, width, _STRIP)
    columns = [slice(left, min(left + _STRIP, width)) for left in lefts]
    return [(slice(top, top + BLOCK), across) for top in range(0, height, BLOCK) for across in columns]


def _block(region: Region) -> tuple[np.int32, np.int32]:
    return tuple(np.int32(side.start // BLOCK) for side in region)


@functools.partial(jax.jit, static_argnums=0)
def _start(width: int, seed: Array, gamma: Array, block: tuple[Array, Array]) -> Float[Array, "64 w 3"]:
    return gamma * image_noise(seed, START, BLOCK, width, first_block=block)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(
    prediction, stochastic, output, x, alpha_bar, alpha_bar_next, seed, eta, k, block
) -> tuple[Float[Array, "64 w 3"], Float[Array, "64 w 3"]]:
    """(x of the next step, x̂₀ of this step) in one strip of the image."""
    noise = image_noise(seed, 1 + k, *x.shape[:2], first_block=block) if stochastic else None
    image = estimate(prediction, output, x, NoiseLevel.of(alpha_bar)).image
    return ddim_step(prediction, output, x, alpha_bar, alpha_bar_next, eta=eta, noise=noise), image


_to_uint8 = jax.jit(to_uint8)
