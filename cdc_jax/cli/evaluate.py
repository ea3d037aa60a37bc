"""`cdc evaluate`: its arguments, and what it reports to the user."""

from __future__ import annotations

import argparse
import sys

from cdc_jax.cli import arguments, console
from cdc_jax.cli.arguments import Environment
from cdc_jax.evaluation.settings import DEFAULT_CODECS, DEFAULT_METRICS, MIN_OVERLAP, SAME_SIZE_METRICS, Settings
from cdc_jax.io.files import MAX_PIXELS

USAGE = "--images DIR --out DIR [--model BUNDLE...] [options]"
_EPILOG = """\
A model of every rate is a curve by itself, each --quality a point on it; of models of one rate, those after one --model
make a curve. Every step count is a curve of its own. --target-bpp compares the codecs' largest files within a size,
image by image. Finished results in the folder of --out are used again,
so the same command resumes after an interruption. --released DIR evaluates the authors' checkpoints at the paper's
settings. docs/evaluation.md describes every output. Needs: pip install '.[eval]'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cdc evaluate`."""
    parser.epilog = _EPILOG
    whole = arguments.whole_number
    add = parser.add_argument
    add("--images", metavar="DIR", required=True, help="the images to evaluate on")
    add("--out", metavar="DIR", required=True, help="results, plots, report.html")
    add(
        "--model",
        metavar="BUNDLE",
        nargs="*",
        action="append",
        help="the bundles of one curve (default: the model that comes with cdc_jax); --model alone: none",
    )
    add("--released", metavar="DIR", help="a folder of the authors' .pt files")
    add("--steps", metavar="N", nargs="+", type=whole(0), help="diffusion steps; 0: the preview (default: several)")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality",
        metavar="Q",
        nargs="+",
        type=arguments.number(0, 100),
        help="of our models of every rate, 0 to 100 (default: 5 15 25 … 85)",
    )
    rate.add_argument(
        "--target-bpp",
        metavar="BPP",
        nargs="+",
        type=_bits_per_pixel,
        default=(),
        help="compare, image by image, every codec's largest file within these bits per pixel",
    )
    add("--seed", metavar="N", type=whole(0, 2**32 - 1), default=0, help="of the noise that decoding starts from")
    add("--gamma", metavar="G", type=arguments.gamma, help="scale of that noise (default: the model's)")
    add(
        "--metrics",
        metavar="NAME",
        nargs="+",
        help="psnr-rgb, psnr-y, ssim, ms-ssim-rgb, lpips-alex, lpips-vgg, dists, fid, fd-vgg "
        f"(default: {' '.join(DEFAULT_METRICS)}; with --target-bpp {' '.join(SAME_SIZE_METRICS)})",
    )
    add("--fid-weights", metavar="FILE", help="the Inception weights of pytorch-fid, for the metric fid")
    add("--codecs", metavar="NAME", nargs="*", help="to compare with: jpeg, webp, avif, jxl (default: all)")
    add(
        "--codec-quality",
        metavar="Q",
        nargs="+",
        type=whole(0, 100),
        help="of each of them, 0 to 100 (default: those whose files have 0.15 to 1.5 bits per pixel)",
    )
    add("--qualities", nargs="*", action=arguments.renamed("--codec-quality"), help=argparse.SUPPRESS)
    add("--anchor", metavar="NAME", help="the curve that BD-rates refer to (default: the first of --codecs)")
    add(
        "--min-overlap",
        metavar="PART",
        type=arguments.number(0, 1),
        default=MIN_OVERLAP,
        help="refuse a BD-rate where curves share less of their range of quality (default: %(default)s)",
    )
    add("--published", metavar="FILE.csv", help="published curves to draw beside, for the same data set and metrics")
    add("--published-codecs", metavar="NAME", nargs="+", help="which of them (default: a short list)")
    add("--data-set", metavar="NAME", help="what the images are called in that file (default: kodak, if they are)")
    add("--report-images", metavar="N", type=whole(0), default=24, help="images in the report (default: %(default)s)")
    add(
        "--max-pixels",
        metavar="N",
        type=whole(1),
        default=MAX_PIXELS,
        help="refuse images with more pixels (default: %(default)s)",
    )
    arguments.add_quiet(parser)


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Evaluates; 1 if an image had to be left out."""
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
    progress_bar = None if args.quiet else _progress_bar
    result = evaluate(settings, load_codec=environment.load_codec, log=console.log, progress_bar=progress_bar)
    if not args.quiet:
        console.log(f"{len(result.measured.records)} of {_total(result)} images evaluated, see {result.report}")
    return console.exit_code_of([1] * len(result.measured.left_out))


def _bits_per_pixel(text: str) -> float:
    value = arguments.gamma(text)
    if value == 0:
        raise argparse.ArgumentTypeError("'0' bits per pixel hold no image")
    return value


def _total(result) -> int:
    return len(result.measured.records) + len(result.measured.left_out)


def _progress_bar(total: int):
    from tqdm import tqdm

    # In a log file every refresh is a line of its own.
    seconds = 0.1 if sys.stderr is not None and sys.stderr.isatty() else 30.0
    return tqdm(total=total, unit="file", file=sys.stderr, mininterval=seconds, smoothing=0.05)
