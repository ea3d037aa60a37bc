"""The `cdc` command, also as `python -m cdc_jax`. Ctrl-C ends it with one line, even during imports."""

from __future__ import annotations

import os
import sys

_LEAVING_AT_ONCE = ("compress", "decompress")  # commands with nothing left to do at exit


def main() -> int:
    """Runs the command line of the process; returns the exit code, or ends the process with it."""
    try:
        from cdc_jax.cli import main as run

        code = run()
    except KeyboardInterrupt:  # during the import: `run` handles its own
        print("cdc: Interrupted.", file=sys.stderr)
        return 130
    if len(sys.argv) > 1 and sys.argv[1] in _LEAVING_AT_ONCE:
        _leave(code)
    return code


def _leave(code: int) -> None:
    """Ends the process at once, unless a profiler or debugger waits for its end.

    Shutting down the interpreter and XLA would take up to half a second. All files are complete and renamed by now.
    """
    if "jax" not in sys.modules or sys.getprofile() is not None or sys.gettrace() is not None:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # Python reports these at a normal exit
        return
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
