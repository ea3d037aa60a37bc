"""The target options of `cdc compress`, and the choice of model and quality for a target."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from cdc_jax.cli import arguments
from cdc_jax.cli.models import Models
from cdc_jax.cli.paths import UsageError

if TYPE_CHECKING:
    from cdc_jax.io.images import ImageContents


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Adds the targets, which determine the quality, and the model if there are several."""
    group = parser.add_mutually_exclusive_group()
    choose = "choose quality and model for the"
    group.add_argument("--target-bpp", metavar="X", type=_positive, help=f"{choose} largest file up to X bpp")
    group.add_argument(
        "--target-bytes",
        metavar="N",
        type=arguments.byte_size,
        help=f"{choose} largest file up to N bytes, such as 60k",
    )
    group.add_argument(
        "--min-psnr",
        metavar="P",
        type=_positive,
        help=f"{choose} smallest file that decodes to P dB or more, at --steps, --seed and --gamma",
    )


def check_decoding(args: argparse.Namespace) -> None:
    """Refuses decoding options if nothing is decoded.

    Raises:
      UsageError: one is given without --min-psnr or --print-metrics.
    """
    given = {
        "--steps": args.steps is not None,
        "--seed": args.seed != 0,
        "--gamma": args.gamma is not None,
        "--bfloat16": args.bfloat16,
    }
    names = [name for name, is_given in given.items() if is_given]
    if names and args.min_psnr is None and not args.print_metrics:
        raise UsageError(
            f"{names[0]} is for --min-psnr and --print-metrics: without them, `cdc compress` decodes nothing."
        )


def has_target(args: argparse.Namespace) -> bool:
    """Whether one of the options of `add_targets` is given."""
    return any(value is not None for value in (args.target_bpp, args.target_bytes, args.min_psnr))


def _positive(text: str) -> float:
    """The argument type for finite numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def choose_model(args: argparse.Namespace, models: Models, contents: ImageContents) -> tuple[bytes, str]:
    """Compresses an image to a target.

    Args:
      args: the command's arguments, with a target.
      models: the models to choose from.
      contents: the image, with its alpha channel and metadata.

    Returns:
      The file, and a short description of the choice for the user.

    Raises:
      CdcError: no model meets the target; the message names the nearest.
    """
    from cdc_jax.codec.model_selection import Target, choose

    target = Target(args.target_bpp, args.target_bytes, args.min_psnr, args.steps, args.seed, args.gamma)
    choice = choose(models.paths, models.load, contents, target)
    return choice.data, f"{choice.model} ({choice.reason})"
