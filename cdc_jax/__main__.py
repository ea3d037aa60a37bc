"""The `cdc` command, also as `python -m cdc_jax`. Ctrl-C ends it with one line even while it still imports."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line of the process; returns the exit code."""
    try:
        from cdc_jax.cli import main as run

        return run()
    except KeyboardInterrupt:  # during the import: `run` handles its own
        print("cdc: Interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
