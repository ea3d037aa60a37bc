"""`cdc compress` and `cdc decompress`: from the command line to the codec and back to files."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cdc_jax.cli import arguments, console, paths, pipeline, target_options
from cdc_jax.errors import ModelMismatchError
from cdc_jax.io.files import CDC_SUFFIX, PICTURE_FORMATS, PICTURE_SUFFIXES, picture_format


class Models:
    """The bundles of a command line, each loaded when it is first needed."""

    def __init__(self, args: argparse.Namespace):
        self._args = args
        self._codecs = {}
        self._loading = threading.Lock()

    def load(self, path: str):
        """The codec of one bundle."""
        with self._loading:
            if path not in self._codecs:
                load_codec = self._args.load_codec
                if load_codec is None:
                    from cdc_jax.codec.codec import load_codec
                    from cdc_jax.runtime import compilation_cache

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


@dataclass
class _Stream:
    """A file to decompress: where from, its bytes, its header, the codec for it, and how long that took by itself."""

    source: str
    data: bytes
    header: object
    codec: object
    seconds: float = 0.0


def _run_tasks(args: argparse.Namespace, plan: paths.Plan, convert: pipeline.Convert) -> int:
    if not args.force and any(task.target == paths.STANDARD for task in plan.tasks):
        if sys.stdout is not None and sys.stdout.isatty():
            raise paths.UsageError("standard output is a terminal: redirect it, or name a file with -o")
    return console.run_tasks(plan, convert, quiet=args.quiet, interruptible=args.is_process)


def _target_check(args: argparse.Namespace, plan: paths.Plan) -> Callable[[paths.Task], None]:
    return lambda task: paths.check_target(task.target, force=args.force, makes_folders=plan.makes_folders)


def run_compress(args: argparse.Namespace) -> int:
    """`cdc compress`: the exit code."""
    by_target = target_options.has_target(args)
    if len(args.model) > 1 and not by_target:
        raise paths.UsageError("compress takes one --model: without a target size there is nothing to choose by")
    plan = paths.plan_tasks(args.inputs, args.output, suffixes=PICTURE_SUFFIXES, new_suffix=CDC_SUFFIX)
    models = Models(args)

    def convert(source: str) -> tuple[bytes, str]:
        from cdc_jax.io.images import load_image

        file = paths.read_source(source) if source == paths.STANDARD else source
        with console.silent_libraries():
            image, notes = load_image(file, max_pixels=args.max_pixels)
        if not args.quiet:
            for note in notes:
                console.say(f"warning: {note}")
        codec = models.load(args.model[0])
        start = time.perf_counter()
        picked = ""
        if by_target:
            data, picked = target_options.choose_model(args, models.load, image, source)
        else:
            data = codec.compress(image)
        bpp = 8 * len(data) / (image.shape[0] * image.shape[1])
        return data, f"{len(data)} bytes, {bpp:.4f} bpp, {time.perf_counter() - start:.2f} s{picked}"

    return _run_tasks(args, plan, pipeline.one_by_one(_target_check(args, plan), convert))


def run_decompress(args: argparse.Namespace) -> int:
    """`cdc decompress`: the exit code."""
    format = args.format or "png"
    new_suffix = PICTURE_FORMATS[format][0]
    plan = paths.plan_tasks(args.inputs, args.output, suffixes=(CDC_SUFFIX,), new_suffix=new_suffix)
    if args.output not in (None, paths.STANDARD) and not plan.makes_folders:
        format = _format_of_output(args.output, args.format)
    models = Models(args)

    def read(source: str) -> _Stream:
        from cdc_jax.io import cdc_file

        data = paths.read_source(source, magic=cdc_file.MAGIC)
        header = cdc_file.unpack(data, max_pixels=args.max_pixels)
        return _Stream(source, data, header, models.for_file(header.fingerprint, source))

    def decode(streams: Sequence[_Stream]) -> Iterator[tuple[int, object]]:
        settings = {"steps": args.steps, "seed": args.seed, "gamma": args.gamma}
        if len(plan.tasks) == 1 or args.max_memory is not None:
            for index, stream in enumerate(streams):
                start = time.perf_counter()
                picture = _decode_one(args, stream, settings)
                stream.seconds = time.perf_counter() - start
                yield index, picture
            return
        for codec in dict.fromkeys(stream.codec for stream in streams):
            members = [index for index, stream in enumerate(streams) if stream.codec is codec]
            for index, picture in codec.decompress_each([streams[i].data for i in members], **settings):
                yield members[index], picture

    def finish(stream: _Stream, image) -> tuple[bytes, str]:
        from cdc_jax.io.images import encode_image

        words = f"{stream.header.width}x{stream.header.height}, {stream.seconds:.2f} s"
        return encode_image(image, format), words

    overlap = args.max_memory is None
    convert = pipeline.in_batches(_target_check(args, plan), read, decode, finish, overlap=overlap)
    return _run_tasks(args, plan, convert)


def _decode_one(args: argparse.Namespace, stream: _Stream, settings: dict):
    """The picture, or the error in its place."""
    try:
        if args.max_memory is not None:
            tile = stream.codec.tile_within(stream.data, args.max_memory)
            if tile is not None:
                settings = {**settings, "tile": tile}
            if tile is not None and not args.quiet:
                whole = tile >= max(stream.header.height, stream.header.width)
                console.say(
                    f"{pipeline.shown(stream.source)}: decoded {'whole' if whole else f'in tiles of {tile} pixels'} "
                    "for --max-memory, which gives a slightly different picture than without"
                )
        return stream.codec.decompress(stream.data, **settings)
    except Exception as error:  # too little memory, for one: the files after it may be smaller
        return error


def _format_of_output(output: str, asked: str | None) -> str:
    named = picture_format(output)
    if named is None and asked is None:
        formats = ", ".join(PICTURE_FORMATS)
        raise paths.UsageError(f"{output}: the suffix names no picture format; give --format ({formats})")
    if named and asked and named != asked:
        raise paths.UsageError(f"{output}: the suffix says {named}, but --format says {asked}")
    return asked or named


def add_compress(parser: argparse.ArgumentParser) -> None:
    """Arguments of `cdc compress`."""
    arguments.add_files(parser, "pictures (PNG, JPEG, WebP, TIFF, BMP)")
    target_options.add_targets(parser)
    _add_decoding(parser)


def add_decompress(parser: argparse.ArgumentParser) -> None:
    """Arguments of `cdc decompress`."""
    arguments.add_files(parser, ".cdc files")
    formats = list(PICTURE_FORMATS)
    parser.add_argument("--format", choices=formats, help="format of outputs whose name does not say it (default: png)")
    parser.add_argument(
        "--max-memory",
        type=arguments.memory_size,
        metavar="SIZE",
        help="decode in the largest tiles for which so much memory will do, such as 4G or 800M, file by file "
        "(default: the tiles depend on the picture's size alone)",
    )
    _add_decoding(parser)


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    steps, seed = arguments.whole_number(1), arguments.whole_number(0, 2**32 - 1)
    parser.add_argument("--steps", type=steps, metavar="N", help="diffusion steps (default: the model's)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the noise that decoding starts from")
    parser.add_argument("--gamma", type=arguments.gamma, metavar="G", help="scale of that noise (default: the model's)")
    parser.add_argument("--bfloat16", action="store_true", help="run the U-Net in bfloat16 (other pixels)")
