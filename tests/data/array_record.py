"""Writes TFDS data sets in ArrayRecord files, without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_data_set(data_dir: Path, name: str, features: dict[str, Any], splits: dict[str, list[dict]]) -> None:
    """Prepares version 1.0.0 of a data set. Images are bytes or paths of files, since arrays would need TensorFlow."""
    import tensorflow_datasets as tfds

    class LocalBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = data_dir
        # With a package's name, TFDS would use importlib_resources, which it does not declare as a requirement.
        __module__ = "builders"

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {split: enumerate(examples) for split, examples in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError  # the splits are generators already

    LocalBuilder.name = name
    LocalBuilder(data_dir=data_dir, file_format="array_record").download_and_prepare()
