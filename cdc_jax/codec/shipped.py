"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path

from cdc_jax.codec.bundle_folder import is_bundle
from cdc_jax.errors import BundleError

_FOLDER = Path(__file__).resolve().parent.parent / "shipped"


def shipped_bundle() -> Path:
    """The folder of the bundle that is used where no model is named.

    Raises:
      BundleError: this installation has none.
    """
    if not is_bundle(_FOLDER):
        raise BundleError(
            "This installation of cdc_jax came without its model: install it again from a full copy, or name a bundle "
            "(--model BUNDLE)."
        )
    return _FOLDER
