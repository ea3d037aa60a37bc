"""Decodes many files. The host decodes the streams of one batch while the devices process the previous batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdc_jax.codec.batching import plan_batches
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
      reader, decoder, devices: those of the model.
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
    batches = plan_batches(sizes, len(devices), devices.batch_pixels)
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
            images = decoder.decode_batch([symbols for _, _, symbols, _ in valid], settings, tile, batch.size)
            for (index, container, _, alpha), image in zip(valid, images, strict=False):
                image = image[: container.height, : container.width]
                yield index, add_alpha(image, alpha) if return_alpha else image
