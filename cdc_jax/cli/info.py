"""`cdc info`: prints what the headers of `.cdc` files contain. Needs no model."""

from __future__ import annotations

import argparse
import json

from cdc_jax.cli import console, paths
from cdc_jax.cli.arguments import Environment
from cdc_jax.cli.planning import list_files
from cdc_jax.errors import CdcError
from cdc_jax.io import cdc_file
from cdc_jax.io.files import CDC_SUFFIX
from cdc_jax.io.header import Header, read_header


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc info`."""
    parser.add_argument("inputs", metavar="FILE", nargs="*", help=".cdc files, folders of them, or -")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line and file")


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Prints a line for each file; returns the exit code."""
    failures = []
    files, problems = list_files(args.inputs, CDC_SUFFIX)
    for problem in problems:
        console.log(problem)
        failures.append(1)
    for path in files:
        try:
            data = paths.read_source(path, magic=cdc_file.MAGIC)
            header = read_header(data)
        except (CdcError, OSError, MemoryError) as error:
            console.log(console.describe(error, console.shown(path)))
            failures.append(1)
            continue
        console.print_line(json.dumps(_facts(path, header)) if args.json else _line(path, header))
    return console.exit_code_of(failures)


def _facts(path: str, header: Header) -> dict[str, object]:
    """The content of the JSON output; quality and chunks only for format 2."""
    facts = {
        "file": path,
        "width": header.width,
        "height": header.height,
        "bytes": header.num_bytes,
        "bpp": header.bpp,
        "format_version": header.format_version,
        "fingerprint": header.fingerprint.hex(),
    }
    if header.quality is not None:
        facts |= {"quality": header.quality, "chunks": dict(header.chunks)}
    return facts


def _line(path: str, header: Header) -> str:
    quality = "" if header.quality is None else f"quality {header.quality:g}, "
    chunks = "".join(f", {kind} {num_bytes} bytes" for kind, num_bytes in header.chunks.items())
    return (
        f"{path}: {header.width}x{header.height} pixels, {header.num_bytes} bytes, {header.bpp:.4f} bpp, "
        f"{quality}format {header.format_version}, model {header.fingerprint.hex()}{chunks}"
    )
