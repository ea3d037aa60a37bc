"""`cdc compress`: compresses images to `.cdc` files."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from cdc_jax.cli import arguments, console, paths, pipeline, target_options
from cdc_jax.cli.arguments import Environment
from cdc_jax.cli.models import Models
from cdc_jax.io.files import CDC_SUFFIX
from cdc_jax.io.image_folders import HEIF_SUFFIXES, image_suffixes

_MOST_NAMES = 20  # skipped files that a message names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc compress`."""
    arguments.add_files(parser, "images (any format that Pillow reads, such as PNG, JPEG, WebP, AVIF, HEIC, TIFF)")
    quality = arguments.number(0, 100)
    parser.add_argument(
        "-q", "--quality", type=quality, metavar="Q", help="0 (smallest file) to 100, decimals allowed (default: 50)"
    )
    target_options.add_targets(parser)
    parser.add_argument(
        "--keep-metadata",
        action="store_true",
        help="keep EXIF, XMP and the colour profile; the colours then stay in an RGB profile instead of sRGB",
    )
    parser.add_argument(
        "--drop-alpha", action="store_true", help="leave out the alpha channel, which is kept without loss otherwise"
    )
    arguments.add_decoding(parser)


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Runs `cdc compress`; returns the exit code."""
    by_target = target_options.has_target(args)
    if len(args.model) > 1 and not by_target:
        raise paths.UsageError("`cdc compress` takes one --model, or several with a target such as --target-bpp.")
    if by_target and args.quality is not None:
        raise paths.UsageError("A target determines the quality: give -q or a target, not both.")
    suffixes = image_suffixes() | HEIF_SUFFIXES  # without their package, these fail and are not just skipped
    plan = paths.plan_tasks(args.inputs, args.output, suffixes=suffixes, new_suffix=CDC_SUFFIX)
    if not args.quiet:
        _log_skipped([path for path in plan.skipped if not path.lower().endswith(CDC_SUFFIX)])
    models = Models(args, environment.load_codec)
    if args.quality is not None and plan.tasks:
        models.load(models.paths[0]).check_quality(args.quality)

    def convert(source: str) -> tuple[bytes, str]:
        from cdc_jax.io.images import read_contents

        file = paths.read_source(source) if source == paths.STANDARD else source
        with console.silent_libraries():
            contents = read_contents(file, max_pixels=args.max_pixels, keep_metadata=args.keep_metadata)
        if args.drop_alpha:
            contents = contents._replace(alpha=None)
        if not args.quiet:
            for note in contents.notes:
                console.log(f"warning: {note}")
        codec = models.load(models.paths[0])
        start = time.perf_counter()
        chosen = ""
        if by_target:
            data, choice = target_options.choose_model(args, models, contents)
            chosen = f", by {choice}"
            if not args.quiet and len(plan.tasks) > 1:
                console.log(f"{console.shown(source)}: {choice}")
        else:
            data = codec.compress(contents, quality=args.quality)
        height, width, _ = contents.pixels.shape
        bpp = 8 * len(data) / (height * width)
        return data, f"{len(data)} bytes, {bpp:.4f} bpp, {time.perf_counter() - start:.2f} s{chosen}"

    outcomes = pipeline.one_by_one(pipeline.target_check(args, plan), convert)
    return pipeline.run_tasks(args, plan, outcomes, interruptible=environment.is_process)


def _log_skipped(names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
        console.log(f"{files} skipped, without the suffix of an image format: {', '.join(names[:_MOST_NAMES])}{more}.")
