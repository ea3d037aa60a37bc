"""The `cdc` command: what can be asked for, and who does it.

One function for the arguments and one that runs it per subcommand; `_COMMANDS`, at the end, lists them. Whatever needs
NumPy, Pillow or JAX is imported inside the subcommand that needs it, so that `cdc info` and `--help` answer at once.

Exit codes: 0 all done, 1 a file failed, 2 usage, 3 the file needs another model, 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

from cdc_jax.cli import arguments, bundles, compress, console, decompress, evaluate, info, verify
from cdc_jax.cli.arguments import Command, Environment
from cdc_jax.errors import CdcError


def main(argv: Sequence[str] | None = None, *, load_codec: Callable | None = None) -> int:
    """Runs one command line.

    Args:
      argv: the arguments after `cdc`; None: those of the process.
      load_codec: in place of `cdc_jax.load_codec`, for tests and other front ends.

    Returns:
      The exit code.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters of them is in our own messages
            args = arguments.parse(sys.argv[1:] if argv is None else list(argv), _COMMANDS)
            return args.run(args, Environment(load_codec, is_process=argv is None))
    except SystemExit as stop:  # argparse: --help, --version, usage
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        console.log("Interrupted.")
        return 130
    except BrokenPipeError:  # as when the output goes to `head`: nobody wants to hear about it
        return 1
    except Exception as error:
        line = console.describe(error)
        if line is None:
            raise
        console.log(line)
        return error.exit_code if isinstance(error, CdcError) else 1


_COMMANDS = (
    Command(
        "compress",
        "IN... [-q QUALITY] [-o OUT] [options]",
        "make .cdc files of images",
        compress.add_arguments,
        compress.run,
    ),
    Command(
        "decompress",
        "IN... [-o OUT] [options]",
        "make images of .cdc files",
        decompress.add_arguments,
        decompress.run,
    ),
    Command(
        "info",
        "FILE... [--json]",
        "show what .cdc files hold; needs no model",
        info.add_arguments,
        info.run,
    ),
    Command(
        "verify",
        "FILE... [--json] [options]",
        "check that .cdc files, the model and this machine agree",
        verify.add_arguments,
        verify.run,
    ),
    Command(
        "evaluate",
        evaluate.USAGE,
        "measure models and other codecs on a folder of images, and write a report",
        evaluate.add_arguments,
        evaluate.run,
    ),
    Command(
        "import-torch",
        "FILE.pt OUT_DIR [--force]",
        "make a bundle of a released PyTorch checkpoint",
        bundles.add_import_torch,
        bundles.run_import_torch,
    ),
    Command(
        "export",
        "WORKDIR OUT_DIR [--step N] [--force]",
        "make a bundle of a training run's checkpoint",
        bundles.add_export,
        bundles.run_export,
    ),
)
