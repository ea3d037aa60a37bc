"""`cdc compress`: compresses images to `.cdc` files."""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import time
from collections.abc import Sequence

from cdc_jax.cli import arguments, console, paths, pipeline, planning, runner, target_options
from cdc_jax.cli.arguments import Environment
from cdc_jax.cli.models import Models
from cdc_jax.io.files import CDC_SUFFIX
from cdc_jax.io.image_folders import HEIF_SUFFIXES, image_suffixes

_MOST_NAMES = 20  # the number of skipped files that a message names
_SILENT_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")  # PNG, JPEG, WebP, GIF, BMP


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
        help="keep EXIF, XMP and the color profile; colors then stay in an RGB profile instead of sRGB",
    )
    parser.add_argument(
        "--drop-alpha", action="store_true", help="leave out the alpha channel, which is otherwise kept losslessly"
    )
    parser.add_argument(
        "--keep-suffix",
        action="store_true",
        help="name outputs photo.png.cdc, not photo.cdc, so that names never clash",
    )
    arguments.add_max_memory(parser, "refuse images")
    parser.add_argument("--print-metrics", action="store_true", help="decode each file, and print its PSNR and SSIM")
    arguments.add_decoding(parser)


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Runs `cdc compress`; returns the exit code."""
    by_target = target_options.has_target(args)
    if len(args.model) > 1 and not by_target:
        raise paths.UsageError("`cdc compress` takes one --model, or several with a target such as --target-bpp.")
    if by_target and args.quality is not None:
        raise paths.UsageError("A target determines the quality: give -q or a target, not both.")
    target_options.check_decoding(args)
    suffixes = image_suffixes() | HEIF_SUFFIXES  # without their package, these fail instead of being skipped
    naming = planning.Naming(suffixes, CDC_SUFFIX, args.keep_suffix)
    plan = planning.plan_tasks(args.inputs, args.output, naming, skip_existing=args.skip_existing)
    if plan.folder is None and args.output is not None and os.path.splitext(args.output)[1].lower() in suffixes:
        raise paths.UsageError(f"{args.output}: The suffix is an image format's; the output is a {CDC_SUFFIX} file.")
    runner.check_plan(args, plan)
    if not args.quiet:
        _log_skipped([path for path in plan.skipped if not path.lower().endswith(CDC_SUFFIX)])
    models = Models(args, environment.load_codec)
    if args.quality is not None and plan.tasks:
        models.load(models.paths[0]).check_quality(args.quality)
    rounded: list[str] = []
    compress = functools.partial(_compress_one, args, models, rounded)
    convert = pipeline.one_by_one(runner.target_check(args, plan), compress, workers=args.jobs)
    code = runner.run_tasks(args, plan, convert, interruptible=environment.is_process)
    if rounded and not args.quiet:
        _log_rounded(sorted(rounded))
    return code


def _compress_one(args: argparse.Namespace, models: Models, rounded: list[str], source: str) -> pipeline.Result:
    """Compresses an image. Adds its name to `rounded` if it has more than 8 bits per sample."""
    from cdc_jax.io.images import read_contents

    file = paths.read_source(source) if source == paths.STANDARD else source
    if args.max_memory is not None:
        _check_memory(args, models, file)
    with console.silent_libraries() if _may_be_noisy(file) else contextlib.nullcontext():
        contents = read_contents(file, max_pixels=args.max_pixels, keep_metadata=args.keep_metadata)
    if args.drop_alpha:
        contents = contents._replace(alpha=None)
    if contents.bits > 8:
        rounded.append(console.shown(source))
    if not args.quiet:
        for note in contents.notes_but_rounding:  # rounding is reported once, for all images
            console.log(f"warning: {note}")
    codec = models.load(models.paths[0])
    start = time.perf_counter()
    if target_options.has_target(args):
        data, choice = target_options.choose_model(args, models, contents)
        chosen = f", by {choice}"
    else:
        data, chosen = codec.compress(contents, quality=args.quality), ""
    pixels = math.prod(contents.pixels.shape[:2])
    details = f"{len(data)} bytes, {8 * len(data) / pixels:.4f} bpp, {time.perf_counter() - start:.2f} s{chosen}"
    if args.print_metrics:
        details += f", {_metrics(args, models, contents.pixels, data)}"
    return pipeline.Result(data, details, pixels, len(data))


def _check_memory(args: argparse.Namespace, models: Models, file: str | bytes) -> None:
    """Raises ConfigError, before the image is read, if compressing it is estimated to take more than --max-memory."""
    from cdc_jax.codec import memory, tiling
    from cdc_jax.io.images import image_size
    from cdc_jax.models.config import padded_sides

    height, width = padded_sides(*image_size(file, max_pixels=args.max_pixels))
    for config in (models.load(path).config for path in models.paths):
        needed_bytes = memory.encoding_bytes(height, width, config)
        if args.min_psnr is not None or args.print_metrics:
            decoding_bytes = memory.decoding_bytes(height, width, tiling.default_tile(height, width), config)
            needed_bytes = max(needed_bytes, decoding_bytes)
        memory.check_limit(args.max_memory, height, width, needed_bytes)


def _metrics(args: argparse.Namespace, models: Models, original, data: bytes) -> str:
    """The PSNR and SSIM of a file's decoded image. SSIM is NaN for images with a side shorter than 11 pixels."""
    from cdc_jax.io.header import read_header
    from cdc_jax.metrics import load_metric, psnr_db

    codec = models.for_file(read_header(data).fingerprint, "the file")
    decoded = codec.decompress(data, steps=args.steps, seed=args.seed, gamma=args.gamma)
    ssim = load_metric("ssim")
    [score] = ssim.score(ssim.reference(original), decoded[None])
    return f"PSNR {psnr_db(original, decoded):.2f} dB, SSIM {score:.4f}"


def _may_be_noisy(file: str | bytes) -> bool:
    """Whether a library might write to standard error, as libtiff does. This is silenced for one file at a time."""
    if isinstance(file, bytes):
        return not file.startswith(_SILENT_STARTS)
    try:
        with open(file, "rb") as stream:
            return not stream.read(4).startswith(_SILENT_STARTS)
    except OSError:  # reported when the image is read
        return False


def _log_skipped(names: Sequence[str]) -> None:
    if names:
        files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
        console.log(f"{files} skipped, without the suffix of an image format: {_list(names)}.")


def _log_rounded(names: Sequence[str]) -> None:
    images = "1 image has" if len(names) == 1 else f"{len(names)} images have"
    console.log(f"warning: {images} more than 8 bits a sample, which were rounded to 8: {_list(names)}.")


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
