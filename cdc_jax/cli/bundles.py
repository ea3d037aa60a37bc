"""`cdc import-torch` and `cdc export`, the commands that create bundles."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from cdc_jax.cli import arguments, console
from cdc_jax.cli.arguments import Environment
from cdc_jax.codec.bundle_folder import check_new_bundle
from cdc_jax.models.config import padded_sides


def add_import_torch(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc import-torch`."""
    parser.add_argument(
        "file",
        metavar="FILE.pt",
        help="a checkpoint of the original implementation, or hf://OWNER/REPO[@REVISION]/FILE.pt",
    )
    _add_output(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    arguments.add_quiet(parser)


def run_import_torch(args: argparse.Namespace, environment: Environment) -> int:
    """Converts a PyTorch checkpoint to a bundle; returns the exit code."""
    from cdc_jax.codec.import_torch import import_torch

    return _make_bundle(args, args.file, lambda folder: import_torch(args.file, folder, overwrite=args.force))


def add_export(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc export`."""
    parser.add_argument("workdir", metavar="WORKDIR", help="the folder of a training run")
    _add_output(parser)
    which = parser.add_mutually_exclusive_group()
    step = arguments.whole_number(0)
    which.add_argument("--step", type=step, metavar="N", help="the checkpoint's step (default: the latest)")
    which.add_argument("--best", action="store_true", help="the checkpoint with the lowest validation loss")
    parser.add_argument("--float16", action="store_true", help="store float16 weights, which halves the size")
    parser.add_argument("--serving", action="store_true", help="add encoder.stablehlo and decoder.stablehlo")
    parser.add_argument(
        "--serving-size",
        metavar="WxH",
        type=_size,
        help="make these programs for one image size only, rounded up to multiples of 64 (default: any size)",
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        default="other",
        help="the weights' license, such as cc-by-4.0, for the model card and the hub (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    arguments.add_quiet(parser)


def run_export(args: argparse.Namespace, environment: Environment) -> int:
    """Converts a checkpoint of a training run to a bundle; returns the exit code."""
    from cdc_jax.training.export import export_workdir

    def make(folder: str) -> None:
        from cdc_jax.codec.serving import Serving

        serving = Serving(args.serving_size) if args.serving or args.serving_size else None
        options = {"step": args.step, "best": args.best, "half": args.float16, "license": args.license}
        export_workdir(args.workdir, folder, **options, serving=serving, overwrite=args.force)

    return _make_bundle(args, args.workdir, make)


def _size(text: str) -> tuple[int, int]:
    """An argument type: WxH as (height, width), rounded up to multiples of 64."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 768x512")
    width, height = map(int, match.groups())
    return padded_sides(height, width)


def _add_output(parser: argparse.ArgumentParser) -> None:
    where = "the bundle's folder, or hf://OWNER/REPO[@BRANCH][/SUBFOLDER], where it is uploaded"
    parser.add_argument("output", metavar="OUT_DIR", help=where)


def _make_bundle(args: argparse.Namespace, source: str, make: Callable[[str], object]) -> int:
    check_new_bundle(args.output, overwrite=args.force)  # fail before the slow part
    make(args.output)
    if not args.quiet:
        console.log(f"{source} -> {args.output}")
    return 0
