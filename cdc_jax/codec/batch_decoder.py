"""Decodes many files. The host decodes the streams of one batch while the devices process the previous batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdc_jax.codec.batching import plan_batches
from cdc_jax.codec.canvases import shared_canvases
from cdc_jax.codec.device_pool import LocalDevices
from cdc_jax.codec.file_reader import FileReader, padded_size
from cdc_jax.codec.image_decoder import DecodeSettings, ImageDecoder
from cdc_jax.errors import CdcError
from cdc_jax.io.alpha import add_alpha
from cdc_jax.io.images import Image, ImageWithAlpha
from cdc_jax.runtime.prefetch import prefetch_one


def decode_files(
    files: Sequence[bytes],
    reader: FileReader,
    decoder: ImageDecoder,
    devices: LocalDevices,
    settings: DecodeSettings,
    tile: int | None,
    return_alpha: bool = False,
) -> Iterator[tuple[int, Image | ImageWithAlpha | CdcError]]:
    """Yields (index, image) in order of completion, and (index, error) for an invalid file.

    Args:
      files: the bytes of each file.
      reader, decoder, devices: the model's.
      settings: how to decode.
      tile: largest side of a tile in pixels; None for the default of the image's size.
      return_alpha: yield images with the alpha channels of their files.
    """
    sizes = []
    for index, data in enumerate(files):
        try:
            sizes.append(padded_size(reader.open(data)))
        except CdcError as error:
            sizes.append(None)
            yield index, error
    canvases = [None] * len(sizes) if tile is not None else shared_canvases(sizes, settings.steps)
    programs = [canvas or size for canvas, size in zip(canvases, sizes, strict=True)]
    batches = plan_batches(programs, len(devices), devices.batch_pixels)
    for batch, read in prefetch_one(lambda batch: [reader.read_or_error(files[i]) for i in batch.members], batches):
        valid = []
        for index, result in zip(batch.members, read, strict=True):
            try:
                if isinstance(result, CdcError):
                    raise result
                valid.append((index, *result, reader.alpha(files[index]) if return_alpha else None))
            except CdcError as error:
                yield index, error
        if valid:
            canvas = canvases[batch.members[0]]
            symbols = [each for _, _, each, _ in valid]
            images = decoder.decode_batch(symbols, settings, tile, batch.size, canvas)
            for (index, container, _, alpha), image in zip(valid, images, strict=False):
                image = image[: container.height, : container.width]
                yield index, add_alpha(image, alpha) if return_alpha else image
