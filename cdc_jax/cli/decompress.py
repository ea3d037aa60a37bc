"""`cdc decompress`: decodes `.cdc` files to images."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cdc_jax.cli import arguments, console, paths, pipeline, planning, runner
from cdc_jax.cli.arguments import Environment
from cdc_jax.cli.models import Models
from cdc_jax.io.files import CDC_SUFFIX, IMAGE_FORMATS, LOSSY_FORMATS, image_format


@dataclass
class _Stream:
    """A file to decompress.

    Attributes:
      source: its path, or `-`.
      data: its bytes.
      header: its header.
      codec: the codec with the file's fingerprint.
      alpha: its alpha channel, uint8 [h, w]; None if every pixel is opaque.
      metadata: its metadata.
      decode_seconds: how long decoding took, if the file was decoded alone.
    """

    source: str
    data: bytes
    header: object
    codec: object
    alpha: object
    metadata: object
    decode_seconds: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc decompress`."""
    arguments.add_files(parser, ".cdc files")
    formats = list(IMAGE_FORMATS)
    parser.add_argument("--format", choices=formats, help="format of outputs without a known suffix (default: png)")
    parser.add_argument(
        "--output-quality",
        type=arguments.whole_number(1, 100),
        metavar="Q",
        help="quality of JPEG and WebP outputs, 1 to 100 (default: 95 for JPEG, lossless WebP)",
    )
    tiles = parser.add_mutually_exclusive_group()
    tiles.add_argument(
        "--max-memory",
        type=arguments.byte_size,
        metavar="SIZE",
        help="decode file by file, in the largest tiles that fit into this much memory, such as 4G or 800M "
        "(default: tiles depend only on the image's size)",
    )
    arguments.add_decoding(parser)
    tiles.add_argument("--tile", type=_tile, metavar="N", help="decode in tiles of N×N pixels, a multiple of 64")
    eta = arguments.number(0, 1)
    parser.add_argument("--eta", type=eta, default=0.0, metavar="E", help="DDIM's η: noise added at each step, 0 to 1")


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Runs `cdc decompress`; returns the exit code."""
    format = args.format or "png"
    new_suffix = IMAGE_FORMATS[format][0]
    naming = planning.Naming((CDC_SUFFIX,), new_suffix)
    plan = planning.plan_tasks(args.inputs, args.output, naming, skip_existing=args.skip_existing)
    if args.output not in (None, paths.STANDARD) and plan.folder is None:
        format = _format_of_output(args.output, args.format)
    _check_quality(args.output_quality, format)
    runner.check_plan(args, plan)
    models = Models(args, environment.load_codec)

    alone = len(plan.tasks) == 1 or args.max_memory is not None or args.tile is not None
    steps = (
        functools.partial(_read, args, models),
        functools.partial(_decode_each if alone else _decode_together, args),
        functools.partial(_finish, args, format),
    )
    concurrent = args.max_memory is None and args.tile is None
    check = runner.target_check(args, plan)
    convert = pipeline.in_batches(check, *steps, concurrent=concurrent, workers=args.jobs)
    return runner.run_tasks(args, plan, convert, interruptible=environment.is_process)


def _read(args: argparse.Namespace, models: Models, source: str) -> _Stream:
    from cdc_jax.io import cdc_file
    from cdc_jax.io.alpha import read_alpha
    from cdc_jax.io.metadata import metadata_in

    data = paths.read_source(source, magic=cdc_file.MAGIC)
    header = cdc_file.unpack(data, max_pixels=args.max_pixels)
    codec = models.for_file(header.fingerprint, source)
    alpha = read_alpha(header.chunks, header.height, header.width)
    return _Stream(source, data, header, codec, alpha, metadata_in(header.chunks))


def _settings(args: argparse.Namespace) -> dict:
    return {"steps": args.steps, "seed": args.seed, "gamma": args.gamma, "eta": args.eta}


def _decode_each(args: argparse.Namespace, streams: Sequence[_Stream]) -> Iterator[tuple[int, object]]:
    """Yields (index, image or exception) for one file after another."""
    for index, stream in enumerate(streams):
        start = time.perf_counter()
        image = _decode_one(args, stream, _settings(args))
        stream.decode_seconds = time.perf_counter() - start
        yield index, image


def _decode_together(args: argparse.Namespace, streams: Sequence[_Stream]) -> Iterator[tuple[int, object]]:
    """Yields (index, image or exception) in order of completion; the files of one model share programs and devices."""
    for codec in dict.fromkeys(stream.codec for stream in streams):
        members = [index for index, stream in enumerate(streams) if stream.codec is codec]
        for index, image in codec.decompress_each([streams[i].data for i in members], **_settings(args)):
            yield members[index], image


def _finish(args: argparse.Namespace, format: str, stream: _Stream, image) -> pipeline.Result:
    from cdc_jax.io.alpha import add_alpha
    from cdc_jax.io.images import encode_image, lost_in

    lost = lost_in(format, alpha=stream.alpha is not None, metadata=stream.metadata)
    if lost and not args.quiet:
        console.log(f"warning: {console.shown(stream.source)}: {' '.join(lost)}")
    if stream.alpha is not None:
        image = add_alpha(image, stream.alpha)
    height, width = stream.header.height, stream.header.width
    seconds = f", {stream.decode_seconds:.2f} s" if stream.decode_seconds else ""  # unknown within a batch
    data = encode_image(image, format, stream.metadata, args.output_quality)
    return pipeline.Result(data, f"{width}x{height}{seconds}", height * width, len(stream.data))


def _tile(text: str) -> int:
    """The argument type for --tile, with the bounds of `codec.tiling.check_tile`."""
    side = arguments.whole_number(192)(text)
    if side % 64:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 64")
    return side


def _decode_one(args: argparse.Namespace, stream: _Stream, settings: dict):
    """The image, or the exception that its decoding raised."""
    try:
        if args.tile is not None:
            settings = {**settings, "tile": args.tile}
        elif args.max_memory is not None:
            settings = {**settings, "max_memory_bytes": args.max_memory}
            tile = stream.codec.tile_within(stream.data, args.max_memory)
            if tile is not None:
                settings = {**settings, "tile": tile}
            if tile is not None and not args.quiet:
                whole = tile >= max(stream.header.height, stream.header.width)
                console.log(
                    f"{console.shown(stream.source)}: decoded {'whole' if whole else f'in tiles of {tile} pixels'} "
                    "for --max-memory; the pixels differ slightly from those without it"
                )
        return stream.codec.decompress(stream.data, **settings)
    except Exception as error:  # such as too little memory: the next files may be smaller
        return error


def _check_quality(quality: int | None, format: str) -> None:
    if quality is not None and format not in LOSSY_FORMATS:
        raise paths.UsageError(f"--output-quality is for {' and '.join(LOSSY_FORMATS)}; the output is {format}.")


def _format_of_output(output: str, requested: str | None) -> str:
    by_suffix = image_format(output)
    if by_suffix is None and requested is None:
        formats = ", ".join(IMAGE_FORMATS)
        raise paths.UsageError(f"{output}: The suffix names no image format; give --format ({formats}).")
    if by_suffix and requested and by_suffix != requested:
        raise paths.UsageError(f"{output}: The suffix means {by_suffix}, but --format is {requested}.")
    return requested or by_suffix
