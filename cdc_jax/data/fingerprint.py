"""Whether images are the ones that a run was started with: their order is a function of how many there are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from cdc_jax.data.sources import ImageSource
from cdc_jax.errors import CheckpointError

_HASH_DIGITS = 16


@dataclass(frozen=True)
class Identity:
    """What distinguishes the training images from others without reading them.

    Attributes:
      records: how many there are.
      names: a hash of all their names in order, 16 hexadecimal digits.
    """

    records: int
    names: str

    def to_dict(self) -> dict[str, int | str]:
        """As JSON."""
        return asdict(self)


def identity(source: ImageSource) -> Identity:
    """Half a second for a million images."""
    names = "\0".join(source.name(record, 0) for record in range(len(source)))
    digest = hashlib.sha256(names.encode(errors="surrogatepass"))  # a file's name may be no Unicode
    return Identity(len(source), digest.hexdigest()[:_HASH_DIGITS])


def check_same_images(stored: Mapping[str, int | str], now: Identity) -> None:
    """Raises CheckpointError where a checkpoint was saved with other images.

    Args:
      stored: the identity as JSON; empty where the checkpoint has none.
      now: of the images that the run would resume with.
    """
    if not stored or stored == now.to_dict():
        return
    if stored["records"] != now.records:
        change = f"The checkpoint was trained on {stored['records']} images, and now there are {now.records}"
    else:
        change = f"There are {now.records} training images as before, but not all of them have the same names"
    raise CheckpointError(
        f"{change}, so that it would continue in another order: bring back the images and settings (data.path, "
        "data.list_file, data.validation) that it was started with, or name another --workdir (init_from takes over "
        "the weights)."
    )
