"""TensorFlow Datasets in ArrayRecord files, read by record and without TensorFlow.

Preparing a data set needs TensorFlow, once; reading does not. Images stay encoded on their way out of TFDS and are
decoded as all others are (`cdc_jax.io.images`): TFDS' own decoder knows neither orientation nor colour profiles.
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
    """A source (see `cdc_jax.data.sources`) over TFDS' random access.

    Attributes:
      records: what `as_data_source` gives, images being bytes of files.
      image_key: the feature with the image.
      title: data set and split, for names.
    """

    records: Sequence[dict[str, Any]]
    image_key: str
    title: str
    frames: int = 1

    def __len__(self) -> int:
        return len(self.records)

    def name(self, record: int, frame: int = 0) -> str:
        """Data set, split and number of the record in it."""
        return f"{self.title} #{record}"

    def read(self, record: int, frame: int = 0) -> Image:
        """uint8 [h, w, 3].

        Raises:
          ImageError: the record or its image is corrupt.
        """
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
    """(training records, validation records or None).

    Args:
      name: data set, where need be with configuration and version: "imagenet2012", "clic", "name/config:1.0.0".
      data_dir: where data sets are prepared; "": TFDS' own choice.
      split: TFDS split expression, such as "train" or "train[:90%]+validation".
      validation: the same, "" for none; it may not share records with `split`.

    Raises:
      ConfigError: unknown data set or split, shared records, no image among the features.
      CdcError: not installed, not prepared, or prepared in another format; the message names the command to run.
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
    """What to run, once and where TensorFlow is installed, to have a data set in ArrayRecord files."""
    folder = f" --data_dir={data_dir}" if data_dir else ""
    manual = " --manual_dir=FOLDER_WITH_THE_ARCHIVES" if name.startswith("imagenet2012") else ""
    return f"tfds build {name} --file_format=array_record{folder}{manual}"


def _prepared_builder(tfds: Any, name: str, data_dir: str) -> Any:
    """A builder whose data are there, in the right format."""
    if not name:
        raise ConfigError("data.name is empty; it must name a TFDS data set.")
    where = data_dir or "TFDS' default folder"
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        raise CdcError(
            f"TFDS knows no data set {name!r}, and none is prepared in {where}; check data.name and data.path."
        ) from None
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"data.name is {name!r}, which TFDS refuses: {reason_of(error)}.") from None
    command = preparation_command(name, data_dir)
    # Asked first: without data, what comes later raises KeyError or NotImplementedError, depending on the format.
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
        raise ConfigError(f"data.name is {name!r}, whose records have {len(keys)} images; one, or 'image', is needed.")
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
