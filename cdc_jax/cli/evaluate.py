"""`cdc evaluate`: compares models and other codecs on a folder of images."""

from __future__ import annotations

import argparse
import sys

from cdc_jax.cli import arguments, console
from cdc_jax.cli.arguments import Environment
from cdc_jax.cli.paths import UsageError, check_folder
from cdc_jax.evaluation.settings import DEFAULT_CODECS, DEFAULT_METRICS, MIN_OVERLAP, SAME_SIZE_METRICS, Settings

USAGE = "--images DIR --out DIR [--model BUNDLE...] [options], or --compare DIR DIR [--metrics NAME...]"
_EPILOG = """\
Every --model is a curve: one variable-rate model with a point per --quality, or several single-rate models. Every step
count gives a separate curve. --target-bpp instead compares the codecs' largest files within a size, image by image.
Results in the folder --out are reused, so the same command resumes after an interruption. --released DIR evaluates the
authors' checkpoints at the paper's settings. --compare scores the images of one folder against those of another.
docs/evaluation.md describes every output. Needs: pip install '.[eval]'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc evaluate`."""
    parser.epilog = _EPILOG
    parser.add_argument("--images", metavar="DIR", help="the images to evaluate on")
    parser.add_argument("--out", metavar="DIR", help="the folder for results, plots and report.html")
    parser.add_argument(
        "--compare",
        metavar="DIR",
        nargs=2,
        help="print the scores of the images of the second folder against those of the same name in the first, as CSV",
    )
    _add_models(parser)
    _add_metrics(parser)
    _add_baselines(parser)
    _add_published(parser)
    count = arguments.whole_number
    parser.add_argument(
        "--report-images", metavar="N", type=count(0), default=24, help="images in the report (default: %(default)s)"
    )
    arguments.add_max_pixels(parser)
    arguments.add_quiet(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    """Adds our models, and the settings for compressing and decoding with them."""
    count, add = arguments.whole_number, parser.add_argument
    add(
        "--model",
        metavar="BUNDLE",
        nargs="*",
        action="append",
        help="the bundles of one curve (default: the model shipped with cdc_jax); --model alone: no model",
    )
    add("--released", metavar="DIR", help="a folder with the authors' .pt files")
    add("--steps", metavar="N", nargs="+", type=count(0), help="diffusion steps; 0: the preview (default: several)")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality",
        metavar="Q",
        nargs="+",
        type=arguments.number(0, 100),
        help="qualities for variable-rate models, 0 to 100 (default: 5 15 25 … 85)",
    )
    rate.add_argument(
        "--target-bpp",
        metavar="BPP",
        nargs="+",
        type=_bits_per_pixel,
        default=(),
        help="compare, image by image, every codec's largest file within this number of bits per pixel",
    )
    add("--seed", metavar="N", type=count(0, 2**32 - 1), default=0, help="seed of the starting noise")
    add("--gamma", metavar="G", type=arguments.gamma, help="scale of the starting noise (default: the model's)")


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    """Adds the metrics, and how curves are compared with them."""
    parser.add_argument(
        "--metrics",
        metavar="NAME",
        nargs="+",
        help="psnr-rgb, psnr-y, ssim, ms-ssim-rgb, lpips-alex, lpips-vgg, dists, fid, fd-vgg "
        f"(default: {' '.join(DEFAULT_METRICS)}; with --target-bpp {' '.join(SAME_SIZE_METRICS)})",
    )
    parser.add_argument("--fid-weights", metavar="FILE", help="the Inception weights of pytorch-fid, required for fid")
    parser.add_argument(
        "--anchor", metavar="NAME", help="the reference curve of BD-rates (default: the first of --codecs)"
    )
    parser.add_argument(
        "--min-overlap",
        metavar="SHARE",
        type=arguments.number(0, 1),
        default=MIN_OVERLAP,
        help="report no BD-rate if curves share less of their quality range (default: %(default)s)",
    )


def _add_baselines(parser: argparse.ArgumentParser) -> None:
    """Adds the codecs to compare with."""
    add = parser.add_argument
    add("--codecs", metavar="NAME", nargs="*", help="baselines: jpeg, webp, avif, jxl (default: all)")
    add(
        "--codec-quality",
        metavar="Q",
        nargs="+",
        type=arguments.whole_number(0, 100),
        help="qualities for all baselines, 0 to 100 (default: for each, those that give 0.15 to 1.5 bits per pixel)",
    )
    add("--qualities", nargs="*", action=arguments.renamed("--codec-quality"), help=argparse.SUPPRESS)


def _add_published(parser: argparse.ArgumentParser) -> None:
    """Adds the published curves to compare with."""
    add = parser.add_argument
    add("--published", metavar="FILE.csv", help="published curves to draw, for the same data set and metrics")
    add("--published-codecs", metavar="NAME", nargs="+", help="which of these curves (default: a short list)")
    add("--data-set", metavar="NAME", help="the data set's name in that file (default: kodak for the Kodak images)")


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Runs `cdc evaluate`; returns the exit code, which is 1 if an image was excluded."""
    if args.compare:
        return _compare(args)
    if not (args.images and args.out):
        raise UsageError("Give --images and --out, or --compare with two folders.")
    from cdc_jax.evaluation.evaluate import evaluate
    from cdc_jax.runtime import compilation_cache

    if environment.load_codec is None:
        compilation_cache.enable()
    settings = Settings(
        images=args.images,
        out=args.out,
        models=args.model,
        released=args.released,
        steps=args.steps,
        seed=args.seed,
        gamma=args.gamma,
        qualities=args.quality,
        targets_bpp=args.target_bpp,
        metrics=args.metrics,
        codecs=DEFAULT_CODECS if args.codecs is None else args.codecs,
        codec_qualities=args.codec_quality,
        anchor=args.anchor,
        min_overlap=args.min_overlap,
        published=args.published,
        published_codecs=args.published_codecs,
        data_set=args.data_set,
        fid_weights=args.fid_weights,
        max_pixels=args.max_pixels,
        report_images=args.report_images,
    )
    check_folder(args.out)
    progress_bar = _progress_bar if console.shows_progress(args.quiet) else None
    result = evaluate(settings, load_codec=environment.load_codec, log=console.log, progress_bar=progress_bar)
    if not args.quiet:
        console.log(f"{len(result.measured.records)} of {_total(result)} images evaluated, see {result.report}")
    return console.exit_code_of([1] * len(result.measured.left_out))


def _compare(args: argparse.Namespace) -> int:
    """Prints a line for each image, the means, and half of their 95 % confidence intervals."""
    if args.images or args.out:
        raise UsageError("--compare takes two folders, and neither --images nor --out.")
    from cdc_jax.evaluation.folder_comparison import compare_folders

    names = args.metrics or DEFAULT_METRICS
    result = compare_folders(*args.compare, names, max_pixels=args.max_pixels)
    for line in result.failed.values():
        console.log(line)
    means = [result.mean(name) for name in names]
    rows = [[image, *(f"{scores[name]:.6g}" for name in names)] for image, scores in result.scores.items()]
    rows += [["mean", *(f"{mean.value:.6g}" for mean in means)], ["±", *(f"{mean.half_width:.2g}" for mean in means)]]
    for row in [["image", *names], *rows]:
        console.print_line(",".join(f'"{cell}"' if "," in cell else cell for cell in row))
    return console.exit_code_of([1] * len(result.failed))


def _bits_per_pixel(text: str) -> float:
    value = arguments.gamma(text)
    if value == 0:
        raise argparse.ArgumentTypeError("'0' bits per pixel hold no image")
    return value


def _total(result) -> int:
    return len(result.measured.records) + len(result.measured.left_out)


def _progress_bar(total: int):
    from tqdm import tqdm

    return tqdm(total=total, unit="file", file=sys.stderr, smoothing=0.05)
