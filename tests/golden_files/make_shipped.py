"""Makes the golden file of the shipped model: scikit-image's photograph of a cup, at quality 60.

  python -m tests.golden_files.make_shipped        from the repository's root

Run it once per coding.npz of a release: every later version must open the file. An existing file is kept.
"""

import sys

from skimage import data

import cdc_jax
from tests.golden_files.make import FOLDER

if __name__ == "__main__":
    target = FOLDER / "shipped" / "coffee.cdc"
    if target.exists():
        sys.exit(f"{target} exists already: golden files are made once and never changed")
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(cdc_jax.load_codec().compress(data.coffee(), quality=60))
