"""The `cdc` command: what can be asked for, and who does it.

One function for the arguments and one that runs it per subcommand; `_COMMANDS`, at the end, lists them. Whatever needs
NumPy, Pillow or JAX is imported inside the subcommand that needs it, so that `cdc info` and `--help` answer at once.

Exit codes: 0 all done, 1 a file failed, 2 usage, 3 the file needs another model, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence

from cdc_jax.cli import arguments, compress, console, evaluate, paths, verify
from cdc_jax.cli.arguments import Command
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
            args.load_codec, args.is_process = load_codec, argv is None
            return args.run(args)
    except SystemExit as stop:  # argparse: --help, --version, usage
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        console.say("interrupted")
        return 130
    except BrokenPipeError:  # as when the output goes to `head`: nobody wants to hear about it
        return 1
    except Exception as error:
        line = console.describe(error)
        if line is None:
            raise
        console.say(line)
        return error.exit_code if isinstance(error, CdcError) else 1


# --- info ------------------------------------------------------------------------------------------------------------


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", metavar="FILE", nargs="*", help=".cdc files, or -")
    parser.add_argument("--json", action="store_true", help="one JSON object per file and line")


def _run_info(args: argparse.Namespace) -> int:
    from cdc_jax.io import cdc_file

    failures = []
    for path in args.inputs:
        try:
            data = paths.read_source(path, magic=cdc_file.MAGIC)
            header = cdc_file.unpack(data)
        except (CdcError, OSError, MemoryError) as error:
            console.say(console.describe(error, console.shown(path)))
            failures.append(1)
            continue
        facts = {
            "file": path,
            "width": header.width,
            "height": header.height,
            "bytes": len(data),
            "bpp": 8 * len(data) / (header.width * header.height),
            "format_version": header.version,
            "fingerprint": header.fingerprint.hex(),
        }
        text = (
            "{file}: {width}x{height} pixels, {bytes} bytes, {bpp:.4f} bpp, "
            "format {format_version}, model {fingerprint}"
        ).format(**facts)
        console.put(json.dumps(facts) if args.json else text)
    return console.exit_code_of(failures)


# --- verify ----------------------------------------------------------------------------------------------------------


def _run_verify(args: argparse.Namespace) -> int:
    def load(path: str, max_pixels: int):
        from cdc_jax.codec.verification import load_verifier

        return load_verifier(path, max_pixels=max_pixels)

    args.load_codec = load
    return verify.run(args, compress.Models(args))


# --- import-torch, export --------------------------------------------------------------------------------------------


def _add_import_torch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.pt", help="a checkpoint of the original program")
    parser.add_argument("output", metavar="OUT_DIR", help="the bundle's folder")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    arguments.add_quiet(parser)


def _run_import_torch(args: argparse.Namespace) -> int:
    from cdc_jax.codec.import_torch import import_torch

    return _run_make_bundle(args, args.file, lambda folder: import_torch(args.file, folder))


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="WORKDIR", help="the folder of a training run")
    parser.add_argument("output", metavar="OUT_DIR", help="the bundle's folder")
    which = parser.add_mutually_exclusive_group()
    step = arguments.whole_number(0)
    which.add_argument("--step", type=step, metavar="N", help="which checkpoint (default: the latest)")
    which.add_argument("--best", action="store_true", help="the checkpoint with the lowest held-out loss")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    arguments.add_quiet(parser)


def _run_export(args: argparse.Namespace) -> int:
    from cdc_jax.training.export import export_workdir

    def make(folder: str) -> None:
        export_workdir(args.workdir, folder, step=args.step, best=args.best)

    return _run_make_bundle(args, args.workdir, make)


def _run_make_bundle(args: argparse.Namespace, source: str, make: Callable[[str], None]) -> int:
    paths.make_bundle(args.output, make, force=args.force)
    if not args.quiet:
        console.say(f"{source} -> {args.output}")
    return 0


_COMMANDS = (
    Command(
        "compress",
        "IN... --model=BUNDLE [-o OUT] [options]",
        "make .cdc files of pictures",
        compress.add_compress,
        compress.run_compress,
    ),
    Command(
        "decompress",
        "IN... --model=BUNDLE [-o OUT] [options]",
        "make pictures of .cdc files",
        compress.add_decompress,
        compress.run_decompress,
    ),
    Command(
        "info",
        "FILE... [--json]",
        "tell what .cdc files hold; needs no model",
        _add_info,
        _run_info,
    ),
    Command(
        "verify",
        "FILE... --model=BUNDLE [--json]",
        "check that .cdc files, the model and this machine agree",
        verify.add_arguments,
        _run_verify,
    ),
    Command(
        "evaluate",
        evaluate.USAGE,
        "measure models and other codecs on a folder of pictures, and write a report",
        evaluate.add_arguments,
        evaluate.run,
    ),
    Command(
        "import-torch",
        "FILE.pt OUT_DIR [--force]",
        "make a bundle of a released PyTorch checkpoint",
        _add_import_torch,
        _run_import_torch,
    ),
    Command(
        "export",
        "WORKDIR OUT_DIR [--step N] [--force]",
        "make a bundle of a training run's checkpoint",
        _add_export,
        _run_export,
    ),
)
