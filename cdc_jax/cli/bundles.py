"""`cdc import-torch` and `cdc export`, the commands that create bundles."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from cdc_jax.cli import arguments, console
from cdc_jax.cli.arguments import Environment
from cdc_jax.codec.bundle_folder import check_new_bundle


def add_import_torch(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc import-torch`."""
    parser.add_argument("file", metavar="FILE.pt", help="a checkpoint of the original program")
    parser.add_argument("output", metavar="OUT_DIR", help="the bundle's folder")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    arguments.add_quiet(parser)


def run_import_torch(args: argparse.Namespace, environment: Environment) -> int:
    """Converts a PyTorch checkpoint to a bundle; returns the exit code."""
    from cdc_jax.codec.import_torch import import_torch

    return _make_bundle(args, args.file, lambda folder: import_torch(args.file, folder, overwrite=args.force))


def add_export(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc export`."""
    parser.add_argument("workdir", metavar="WORKDIR", help="the folder of a training run")
    parser.add_argument("output", metavar="OUT_DIR", help="the bundle's folder")
    which = parser.add_mutually_exclusive_group()
    step = arguments.whole_number(0)
    which.add_argument("--step", type=step, metavar="N", help="the checkpoint's step (default: the latest)")
    which.add_argument("--best", action="store_true", help="the checkpoint with the lowest validation loss")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    arguments.add_quiet(parser)


def run_export(args: argparse.Namespace, environment: Environment) -> int:
    """Converts a checkpoint of a training run to a bundle; returns the exit code."""
    from cdc_jax.training.export import export_workdir

    def make(folder: str) -> None:
        export_workdir(args.workdir, folder, step=args.step, best=args.best, overwrite=args.force)

    return _make_bundle(args, args.workdir, make)


def _make_bundle(args: argparse.Namespace, source: str, make: Callable[[str], object]) -> int:
    check_new_bundle(args.output, overwrite=args.force)  # before spending time on it
    make(args.output)
    if not args.quiet:
        console.log(f"{source} -> {args.output}")
    return 0
