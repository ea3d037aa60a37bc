"""`cdc info`: what `.cdc` files hold, without a model."""

from __future__ import annotations

import argparse
import json

from cdc_jax.cli import console, paths
from cdc_jax.cli.arguments import Environment
from cdc_jax.errors import CdcError
from cdc_jax.io import cdc_file
from cdc_jax.io.header import read_header


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cdc info`."""
    parser.add_argument("inputs", metavar="FILE", nargs="*", help=".cdc files, or -")
    parser.add_argument("--json", action="store_true", help="one JSON object per file and line")


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Prints a line for each file; the exit code."""
    failures = []
    for path in args.inputs:
        try:
            data = paths.read_source(path, magic=cdc_file.MAGIC)
            header = read_header(data)
        except (CdcError, OSError, MemoryError) as error:
            console.log(console.describe(error, console.shown(path)))
            failures.append(1)
            continue
        facts = {
            "file": path,
            "width": header.width,
            "height": header.height,
            "bytes": header.num_bytes,
            "bpp": header.bpp,
            "format_version": header.format_version,
            "fingerprint": header.fingerprint.hex(),
        }
        quality = ""
        if header.quality is not None:
            facts["quality"] = header.quality
            facts["chunks"] = dict(header.chunks)
            quality = f"quality {header.quality:g}, "
        text = (
            "{file}: {width}x{height} pixels, {bytes} bytes, {bpp:.4f} bpp, "
            f"{quality}format {{format_version}}, model {{fingerprint}}"
        ).format(**facts)
        console.print_line(json.dumps(facts) if args.json else text)
    return console.exit_code_of(failures)
