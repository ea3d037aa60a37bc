"""TensorFlow Datasets (TFDS) in ArrayRecord files, read with random access and without TensorFlow.

Only preparing a data set needs TensorFlow. TFDS returns encoded images, and `cdc_jax.io.images` decodes them like all
others: TFDS's own decoder ignores orientation and color profiles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cdc_jax.errors import CdcError, ConfigError, ImageError, reason_of
from cdc_jax.io.images import Image, load_image


@dataclass(frozen=True)
class TfdsRecords:
    """A source (see `sources.ImageSource`) of a TFDS data set's records.

    Attributes:
      records: from TFDS's `as_data_source`, with images as the bytes of encoded files.
      image_key: name of the feature that is the image.
      title: data set and split, for the images' names.
      frames: 1, the number of images per record.
    """

    records: Sequence[dict[str, Any]]
    image_key: str
    title: str
    frames: int = 1

    def __len__(self) -> int:
        return len(self.records)

    def name(self, record: int, frame: int = 0) -> str:
        """Data set, split, and the record's number."""
        return f"{self.title} #{record}"

    def read(self, record: int, frame: int = 0) -> Image:
        """Reads an image, uint8 [h, w, 3]. Raises ImageError if the record or its image is corrupt."""
        try:
            example = self.records[record]
        except Exception as error:  # whatever the file system or the record reader raises
            raise ImageError(f"{self.name(record)}: The record cannot be read ({reason_of(error)}).") from error
        try:
            return load_image(bytes(example[self.image_key]))[0]
        except ImageError as error:
            own_name = example.get("file_name", b"")
            own_name = f" ({own_name.decode(errors='replace')})" if isinstance(own_name, bytes) and own_name else ""
            raise ImageError(f"{self.name(record)}{own_name}: {error}") from None


def open_tfds(name: str, data_dir: str, split: str, validation: str) -> tuple[TfdsRecords, TfdsRecords | None]:
    """Opens a prepared TFDS data set.

    Args:
      name: the data set, with its configuration and version if needed: "imagenet2012", "clic", "name/config:1.0.0".
      data_dir: folder of prepared data sets; "": TFDS's default.
      split: TFDS split expression of the training records, such as "train" or "train[:90%]+validation".
      validation: split expression of the validation records; "": none. It must not share records with `split`.

    Returns:
      (training records, validation records or None).

    Raises:
      ConfigError: the data set or a split is unknown, the splits share records, or no feature is an image.
      CdcError: TFDS is not installed, or the data set is not prepared or has another format; the message names the
        command to run.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise CdcError("TFDS data sets are read with tensorflow-datasets: pip install '.[train]'.") from None
    builder = _prepared_builder(tfds, name, data_dir)
    image_key = _image_key(tfds, builder, name)

    def records(expression: str, setting: str) -> TfdsRecords:
        try:
            source = builder.as_data_source(expression, decoders={image_key: tfds.decode.SkipDecoding()})
        except (ValueError, KeyError, AssertionError) as error:
            known = ", ".join(builder.info.splits)
            message = f"{setting} is {expression!r}, which names no records of {name}; splits: {known}."
            raise ConfigError(message) from error
        return TfdsRecords(source, image_key, f"{name} {expression}")

    training = records(split, "data.split")
    if not validation:
        return training, None
    measured = records(validation, "data.validation")
    if _share_records(tfds, builder, split, validation):
        raise ConfigError(f"data.validation ({validation}) shares records with data.split ({split}); train on others.")
    return training, measured


def preparation_command(name: str, data_dir: str) -> str:
    """The command that prepares a data set in ArrayRecord files. It needs TensorFlow."""
    folder = f" --data_dir={data_dir}" if data_dir else ""
    manual = " --manual_dir=FOLDER_WITH_THE_ARCHIVES" if name.startswith("imagenet2012") else ""
    return f"tfds build {name} --file_format=array_record{folder}{manual}"


def _prepared_builder(tfds: Any, name: str, data_dir: str) -> Any:
    """TFDS's builder of a data set that is prepared in ArrayRecord files."""
    if not name:
        raise ConfigError("data.name is empty; it must name a TFDS data set.")
    where = data_dir or "TFDS's default folder"
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        raise CdcError(
            f"TFDS has no data set {name!r}, and none is prepared in {where}; check data.name and data.path."
        ) from None
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"data.name is {name!r}, which TFDS refuses: {reason_of(error)}.") from None
    command = preparation_command(name, data_dir)
    # Check this first: without data, later calls raise KeyError or NotImplementedError, depending on the format.
    if not builder.info.splits:
        raise CdcError(f"{name} is not prepared in {where}: run `{command}` (it needs TensorFlow, once).")
    file_format = builder.info.file_format
    if file_format is None or file_format.value != "array_record":
        kind = "another format" if file_format is None else file_format.value
        raise CdcError(
            f"{name} in {where} is prepared as {kind}, which has no random access: move it away, then run `{command}`."
        )
    return builder


def _image_key(tfds: Any, builder: Any, name: str) -> str:
    """The feature "image", or else the only one that is an image."""
    features = builder.info.features
    keys = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if "image" in keys:
        return "image"
    if len(keys) != 1:
        raise ConfigError(
            f"data.name is {name!r}, whose records have {len(keys)} images; they must have one, or one named 'image'."
        )
    return keys[0]


def _share_records(tfds: Any, builder: Any, first: str, second: str) -> bool:
    """Whether two split expressions have a record in common."""

    def ranges(expression: str) -> list[tuple[str, int, int]]:
        expression = re.sub(r"\s", "", expression)
        intervals = []
        for part in tfds.core.ReadInstruction.from_spec(expression).to_absolute(builder.info.splits):
            size = builder.info.splits[part.splitname].num_examples
            start, stop, _ = slice(part.from_, part.to).indices(size)
            intervals.append((part.splitname, start, stop))
        return intervals

    return any(
        a == b and max(start_a, start_b) < min(stop_a, stop_b)
        for a, start_a, stop_a in ranges(first)
        for b, start_b, stop_b in ranges(second)
    )
