"""The `cdc` command and its subcommands.

Each subcommand has a function that adds its arguments and a function that runs it; `_COMMANDS` at the end lists them.
NumPy, Pillow and JAX are imported only inside the functions that need them, so that `cdc info` and `--help` are fast.

Exit codes: 0 success, 1 a file failed, 2 usage error, 3 a file needs another model, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence

from cdc_jax.cli import arguments, bundles, compress, console, decompress, evaluate, info, model_list, verify
from cdc_jax.cli.arguments import Command, Environment
from cdc_jax.errors import CdcError


def main(argv: Sequence[str] | None = None, *, load_codec: Callable | None = None) -> int:
    """Runs one command line.

    Args:
      argv: the arguments after `cdc`; by default, those of the process.
      load_codec: replaces `cdc_jax.load_codec` in tests and other front ends.

    Returns:
      The exit code.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # our own messages report what matters
            args = arguments.parse(sys.argv[1:] if argv is None else list(argv), _COMMANDS)
            if getattr(args, "quiet", False):
                os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read by huggingface_hub
            return args.run(args, Environment(load_codec, is_process=argv is None))
    except SystemExit as stop:  # argparse: --help, --version, usage
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        console.log("Interrupted.")
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended: not worth a message
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
        "compress images to .cdc files",
        compress.add_arguments,
        compress.run,
    ),
    Command(
        "decompress",
        "IN... [-o OUT] [options]",
        "decompress .cdc files to images",
        decompress.add_arguments,
        decompress.run,
    ),
    Command(
        "info",
        "FILE... [--json]",
        "print size, rate and model of .cdc files; needs no model",
        info.add_arguments,
        info.run,
    ),
    Command(
        "models",
        "[--json]",
        "list the models that need no download",
        model_list.add_arguments,
        model_list.run,
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
        "convert a released PyTorch checkpoint to a bundle",
        bundles.add_import_torch,
        bundles.run_import_torch,
    ),
    Command(
        "export",
        "WORKDIR OUT_DIR [--step N | --best] [--float16] [options]",
        "convert a checkpoint of a training run to a bundle",
        bundles.add_export,
        bundles.run_export,
    ),
)
