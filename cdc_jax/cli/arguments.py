"""Arguments of the `cdc` command: the parser, options that several subcommands share, and argument types."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cdc_jax.codec.bundle_folder import is_bundle
from cdc_jax.io.files import MAX_PIXELS
from cdc_jax.io.hub import is_hub_name
from cdc_jax.version import __version__

_EXIT_CODES = "exit codes: 0 success, 1 a file failed, 2 usage error, 3 a file needs another model"
_FILES = """\
Without -o, outputs are written next to their inputs. For several inputs or a folder (which is read with its
subfolders), -o names a folder, which gets the same tree. For one file, -o names a folder if it is one or ends in a
slash. A missing folder is created. '-' is standard input or output. Existing files are kept unless --force is given.
A file that fails does not stop the others.
"""


class Environment(NamedTuple):
    """The environment of a command line.

    Attributes:
      load_codec: replaces `cdc_jax.load_codec`, unless None.
      is_process: whether the process runs only this command line, so that Ctrl-C may end it at once.
    """

    load_codec: Callable | None = None
    is_process: bool = False


class Command(NamedTuple):
    """A subcommand: `add_arguments` fills its parser, `run` executes it and returns the exit code."""

    name: str
    usage: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Environment], int]


def parse(argv: Sequence[str], commands: Sequence[Command]) -> argparse.Namespace:
    """Parses a command line; returns the arguments of its subcommand, including the subcommand's `run` function.

    If a subcommand has an argument `inputs` (`nargs="*"`), inputs may appear anywhere between its options, and at least
    one is required. Everything after `--` is an input, even if it begins with a dash.

    Raises:
      SystemExit: for --help and --version (code 0), and for a usage error (code 2), which is reported in one line on
        standard error.
    """
    parser = _parser(commands)
    end = argv.index("--") if "--" in argv else len(argv)
    args, more = parser.parse_known_args(argv[:end])
    if args.run is None:
        parser.error("which command? One of " + ", ".join(command.name for command in commands))
    flags = [word for word in more if word.startswith("-") and word != "-"]
    more += argv[end + 1 :]
    if flags or (more and not hasattr(args, "inputs")):
        args.parser.error(f"unrecognized arguments: {' '.join(flags or more)}; usage: {args.parser.usage}")
    if hasattr(args, "inputs"):
        args.inputs = args.inputs + more
        words = args.inputs if hasattr(args, "model") else []
        bundles = [word for word in words if is_hub_name(word) or is_bundle(word)]
        if bundles:
            args.parser.error(f"the input {bundles[0]} is a bundle: give --model once for each, --model A --model B")
        if not args.inputs:
            args.parser.error("no input files were given")
    return args


def add_files(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the arguments that compress and decompress share: inputs, output, model and limits."""
    parser.epilog = _FILES
    parser.add_argument("inputs", metavar="IN", nargs="*", help=f"{what}, folders of them, or -")
    parser.add_argument("-o", "--output", metavar="OUT", help="the output file (or folder, see below), or -")
    add_model(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="replace existing outputs")
    existing.add_argument("--skip-existing", action="store_true", help="skip inputs whose output exists")
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=whole_number(1, 64),
        default=4,
        help="files that are read, coded or written at the same time (default: %(default)s); fewer use less memory",
    )
    add_quiet(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds --model and --max-pixels to a command that reads or writes `.cdc` files."""
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        action="append",
        default=[],
        help="a model's bundle: a folder, or hf://OWNER/REPO[@REVISION][/SUBFOLDER]; repeat the option for several "
        "(default: the model shipped with cdc_jax); each file is read with the model that has its fingerprint",
    )
    add_max_pixels(parser)


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Adds --max-pixels."""
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=whole_number(1),
        default=MAX_PIXELS,
        help="refuse images with more pixels (default: %(default)s)",
    )


def add_max_memory(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds --max-memory to a command whose work cannot be divided. Its help is `what` + " that need more memory"."""
    parser.add_argument(
        "--max-memory", type=byte_size, metavar="SIZE", help=f"{what} that need more memory, such as 4G or 800M"
    )


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Adds the decoding options, which `cdc compress` needs for --min-psnr and --print-metrics."""
    steps, seed = whole_number(0), whole_number(0, 2**32 - 1)
    parser.add_argument(
        "--steps",
        type=steps,
        metavar="N",
        help="diffusion steps (default: the model's); 0: a preview without running a network",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of the starting noise")
    parser.add_argument("--gamma", type=gamma, metavar="G", help="scale of the starting noise (default: the model's)")
    parser.add_argument("--bfloat16", action="store_true", help="run the U-Net in bfloat16 (changes pixels slightly)")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Adds --quiet. -q is the quality in `cdc compress`; in other subcommands it is an error that points to --quiet."""
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    if not parser.prog.endswith(" compress"):
        parser.add_argument("-q", action=_NoQuality, nargs="?", help=argparse.SUPPRESS)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Returns an argument type: whole numbers from `least` to `most`, inclusive; None: no upper bound."""

    def parse_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return value

    return parse_number


def number(least: float, most: float) -> Callable[[str], float]:
    """Returns an argument type: numbers from `least` to `most`, inclusive."""

    def parse_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
        return value

    return parse_number


def gamma(text: str) -> float:
    """The argument type for finite numbers of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def byte_size(text: str) -> int:
    """The argument type for a size in bytes: `60k`, `2G` and `2GiB` use powers of 1024, `2GB` uses powers of 1000."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)(?:([KMGT])(I?B)?|B)?", text.strip().upper())
    value = 0.0
    if match:
        number, prefix, unit = match.groups()
        value = float(number) * (1000 if unit == "B" else 1024) ** (" KMGT".index(prefix) if prefix else 0)
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 60k, 800M or 2GiB")
    return int(value)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        sentence = message[:1].upper() + message[1:]
        self.exit(2, f"cdc: {sentence} (see '{self.prog} --help').\n")


def renamed(new: str) -> type[argparse.Action]:
    """Returns the action for a renamed option: a usage error that states the new name."""

    class Renamed(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            parser.error(f"{option_string} is now {new}")

    return Renamed


class _NoQuality(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        parser.error("-q is the quality of cdc compress; to print errors only, give --quiet")


def _parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cdc",
        description="Compress images with a learned model, and decompress them.",
        epilog="See 'cdc COMMAND --help'; " + _EXIT_CODES + ".",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", help="print the version", version=f"cdc {__version__}")
    parser.set_defaults(run=None)
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in commands:
        sub = subparsers.add_parser(
            command.name,
            usage=f"cdc {command.name} {command.usage}",
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(sub)
        sub.epilog = "\n".join(filter(None, [sub.epilog, _EXIT_CODES]))
        sub.set_defaults(run=command.run, parser=sub)
    return parser
