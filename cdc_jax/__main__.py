"""`python -m cdc_jax` is the `cdc` command."""

import sys

from cdc_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
