"""The `cdc` command: what can be asked for, and who does it.

One `_add_NAME` (arguments) and one `_run_NAME` per subcommand; `_COMMANDS`, at the end, lists them. Whatever needs
NumPy, Pillow or JAX is imported inside the subcommand that needs it, so that `cdc info` and `--help` answer at once.

Exit codes: 0 all done, 1 a file failed, 2 usage, 3 the file needs another model, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence

from cdc_jax import cli_args, cli_choose, cli_evaluate, cli_files, cli_run, cli_verify
from cdc_jax.cli_args import Command
from cdc_jax.errors import CdcError, ModelMismatchError
from cdc_jax.files import CDC_SUFFIX, PICTURE_FORMATS, PICTURE_SUFFIXES, picture_format


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
            args = cli_args.parse(sys.argv[1:] if argv is None else list(argv), _COMMANDS)
            args.load_codec, args.is_process = load_codec, argv is None
            return args.run(args)
    except SystemExit as stop:  # argparse: --help, --version, usage
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        cli_run.say("interrupted")
        return 130
    except BrokenPipeError:  # as when the output goes to `head`: nobody wants to hear about it
        return 1
    except Exception as error:
        line = cli_run.describe(error)
        if line is None:
            raise
        cli_run.say(line)
        return error.exit_code if isinstance(error, CdcError) else 1


# --- compress, decompress --------------------------------------------------------------------------------------------


class _Models:
    """The bundles of a command line, each loaded when it is first needed."""

    def __init__(self, args: argparse.Namespace):
        self._args = args
        self._codecs = {}

    def load(self, path: str):
        """The codec of one bundle."""
        if path not in self._codecs:
            load_codec = self._args.load_codec
            if load_codec is None:
                from cdc_jax import compilation_cache
                from cdc_jax.codec import load_codec

                compilation_cache.enable()
            options = {"compute_type": "bfloat16"} if getattr(self._args, "bfloat16", False) else {}
            self._codecs[path] = load_codec(path, max_pixels=self._args.max_pixels, **options)
        return self._codecs[path]

    def for_file(self, fingerprint: bytes, name: str):
        """The first codec with a file's fingerprint."""
        others = []
        for path in self._args.model:
            codec = self.load(path)
            if codec.fingerprint == fingerprint:
                return codec
            others.append(f"{path} is {codec.fingerprint.hex()}")
        needed = f"{name}: needs the model {fingerprint.hex()} that it was written with"
        raise ModelMismatchError(f"{needed}, but {', '.join(others)}")


def _run_tasks(args: argparse.Namespace, plan: cli_files.Plan, convert: Callable[[str], tuple[bytes, str]]) -> int:
    if not args.force and any(task.target == cli_files.STANDARD for task in plan.tasks):
        if sys.stdout is not None and sys.stdout.isatty():
            raise cli_files.UsageError("standard output is a terminal: redirect it, or name a file with -o")
    return cli_run.run_tasks(plan, convert, force=args.force, quiet=args.quiet, interruptible=args.is_process)


def _run_compress(args: argparse.Namespace) -> int:
    by_target = cli_choose.has_target(args)
    if len(args.model) > 1 and not by_target:
        raise cli_files.UsageError("compress takes one --model: without a target size there is nothing to choose by")
    plan = cli_files.plan_tasks(args.inputs, args.output, suffixes=PICTURE_SUFFIXES, new_suffix=CDC_SUFFIX)
    models = _Models(args)

    def convert(source: str) -> tuple[bytes, str]:
        from cdc_jax.images import load_image

        file = cli_files.read_source(source) if source == cli_files.STANDARD else source
        with cli_run.silent_libraries():
            image, notes = load_image(file, max_pixels=args.max_pixels)
        if not args.quiet:
            for note in notes:
                cli_run.say(f"warning: {note}")
        codec = models.load(args.model[0])
        start = time.perf_counter()
        picked = ""
        if by_target:
            data, picked = cli_choose.choose_model(args, models.load, image, source)
        else:
            data = codec.compress(image)
        bpp = 8 * len(data) / (image.shape[0] * image.shape[1])
        return data, f"{len(data)} bytes, {bpp:.4f} bpp, {time.perf_counter() - start:.2f} s{picked}"

    return _run_tasks(args, plan, convert)


def _run_decompress(args: argparse.Namespace) -> int:
    format = args.format or "png"
    new_suffix = PICTURE_FORMATS[format][0]
    plan = cli_files.plan_tasks(args.inputs, args.output, suffixes=(CDC_SUFFIX,), new_suffix=new_suffix)
    if args.output not in (None, cli_files.STANDARD) and not plan.makes_folders:
        format = _format_of_output(args.output, args.format)
    models = _Models(args)

    def convert(source: str) -> tuple[bytes, str]:
        from cdc_jax import bitstream
        from cdc_jax.images import encode_image

        data = cli_files.read_source(source, magic=bitstream.MAGIC)
        header = bitstream.unpack(data, max_pixels=args.max_pixels)
        codec = models.for_file(header.fingerprint, source)
        start = time.perf_counter()
        image = codec.decompress(data, steps=args.steps, seed=args.seed, gamma=args.gamma)
        seconds = time.perf_counter() - start
        return encode_image(image, format), f"{header.width}x{header.height}, {seconds:.2f} s"

    return _run_tasks(args, plan, convert)


def _format_of_output(output: str, asked: str | None) -> str:
    named = picture_format(output)
    if named is None and asked is None:
        formats = ", ".join(PICTURE_FORMATS)
        raise cli_files.UsageError(f"{output}: the suffix names no picture format; give --format ({formats})")
    if named and asked and named != asked:
        raise cli_files.UsageError(f"{output}: the suffix says {named}, but --format says {asked}")
    return asked or named


def _add_compress(parser: argparse.ArgumentParser) -> None:
    cli_args.add_files(parser, "pictures (PNG, JPEG, WebP, TIFF, BMP)")
    cli_choose.add_targets(parser)
    _add_decoding(parser)


def _add_decompress(parser: argparse.ArgumentParser) -> None:
    cli_args.add_files(parser, ".cdc files")
    formats = list(PICTURE_FORMATS)
    parser.add_argument("--format", choices=formats, help="format of outputs whose name does not say it (default: png)")
    _add_decoding(parser)


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    steps, seed = cli_args.whole_number(1), cli_args.whole_number(0, 2**32 - 1)
    parser.add_argument("--steps", type=steps, metavar="N", help="diffusion steps (default: the model's)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the noise that decoding starts from")
    parser.add_argument("--gamma", type=cli_args.gamma, metavar="G", help="scale of that noise (default: the model's)")
    parser.add_argument("--bfloat16", action="store_true", help="run the U-Net in bfloat16 (other pixels)")


# --- info ------------------------------------------------------------------------------------------------------------


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", metavar="FILE", nargs="*", help=".cdc files, or -")
    parser.add_argument("--json", action="store_true", help="one JSON object per file and line")


def _run_info(args: argparse.Namespace) -> int:
    from cdc_jax import bitstream

    failures = []
    for path in args.inputs:
        try:
            data = cli_files.read_source(path, magic=bitstream.MAGIC)
            header = bitstream.unpack(data)
        except (CdcError, OSError, MemoryError) as error:
            cli_run.say(cli_run.describe(error, cli_run.shown(path)))
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
        cli_run.put(json.dumps(facts) if args.json else text)
    return cli_run.exit_code_of(failures)


# --- verify ----------------------------------------------------------------------------------------------------------


def _run_verify(args: argparse.Namespace) -> int:
    def load(path: str, max_pixels: int):
        from cdc_jax.verify import load_verifier

        return load_verifier(path, max_pixels=max_pixels)

    args.load_codec = load
    return cli_verify.run(args, _Models(args))


# --- import-torch, export --------------------------------------------------------------------------------------------


def _add_import_torch(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Needs PyTorch: pip install '.[torch]'"
    parser.add_argument("file", metavar="FILE.pt", help="a checkpoint of the original program")
    parser.add_argument("output", metavar="OUT_DIR", help="the bundle's folder")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    cli_args.add_quiet(parser)


def _run_import_torch(args: argparse.Namespace) -> int:
    from cdc_jax.torch_import import import_torch

    return _run_make_bundle(args, args.file, lambda folder: import_torch(args.file, folder))


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="WORKDIR", help="the folder of a training run")
    parser.add_argument("output", metavar="OUT_DIR", help="the bundle's folder")
    which = parser.add_mutually_exclusive_group()
    step = cli_args.whole_number(0)
    which.add_argument("--step", type=step, metavar="N", help="which checkpoint (default: the latest)")
    which.add_argument("--best", action="store_true", help="the checkpoint with the lowest held-out loss")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    cli_args.add_quiet(parser)


def _run_export(args: argparse.Namespace) -> int:
    from cdc_jax.export import export_workdir

    def make(folder: str) -> None:
        export_workdir(args.workdir, folder, step=args.step, best=args.best)

    return _run_make_bundle(args, args.workdir, make)


def _run_make_bundle(args: argparse.Namespace, source: str, make: Callable[[str], None]) -> int:
    cli_files.make_bundle(args.output, make, force=args.force)
    if not args.quiet:
        cli_run.say(f"{source} -> {args.output}")
    return 0


_COMMANDS = (
    Command(
        "compress",
        "IN... --model=BUNDLE [-o OUT] [options]",
        "make .cdc files of pictures",
        _add_compress,
        _run_compress,
    ),
    Command(
        "decompress",
        "IN... --model=BUNDLE [-o OUT] [options]",
        "make pictures of .cdc files",
        _add_decompress,
        _run_decompress,
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
        cli_verify.add_arguments,
        _run_verify,
    ),
    Command(
        "evaluate",
        cli_evaluate.USAGE,
        "measure models and other codecs on a folder of pictures, and write a report",
        cli_evaluate.add_arguments,
        cli_evaluate.run,
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
