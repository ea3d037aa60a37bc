"""`cdc compress` with a target: the options, and the choice of model and quality."""

from __future__ import annotations

import argparse
import math

from cdc_jax.cli import arguments
from cdc_jax.cli.models import Models


def add_targets(parser: argparse.ArgumentParser) -> None:
    """What to choose the quality, or one of several models, by."""
    group = parser.add_mutually_exclusive_group()
    choose, whole = "choose quality and model for the", arguments.whole_number(1)
    group.add_argument("--target-bpp", metavar="X", type=_positive, help=f"{choose} largest file up to X bpp")
    group.add_argument("--target-bytes", metavar="N", type=whole, help=f"{choose} largest file up to N bytes")
    group.add_argument(
        "--min-psnr",
        metavar="P",
        type=_positive,
        help=f"{choose} smallest file that decodes to P dB or more, at --steps, --seed and --gamma",
    )


def has_target(args: argparse.Namespace) -> bool:
    """Whether one of `add_targets` is given."""
    return any(value is not None for value in (args.target_bpp, args.target_bytes, args.min_psnr))


def _positive(text: str) -> float:
    """An argument type: finite numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def choose_model(args: argparse.Namespace, models: Models, image) -> tuple[bytes, str]:
    """The file of the model that keeps to the target, and words about the choice.

    Raises:
      CdcError: no model does; the message names the nearest.
    """
    from cdc_jax.codec.model_selection import Target, choose

    target = Target(args.target_bpp, args.target_bytes, args.min_psnr, args.steps, args.seed, args.gamma)
    choice = choose(models.paths, models.load, image, target)
    return choice.data, f"{choice.model} ({choice.reason})"
