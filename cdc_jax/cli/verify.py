"""`cdc verify`: checks for each file that the file, the bundle and this machine agree."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from cdc_jax.cli import arguments, console, paths
from cdc_jax.cli.arguments import Environment
from cdc_jax.cli.models import Models
from cdc_jax.cli.planning import list_files
from cdc_jax.errors import BundleError, CdcError
from cdc_jax.io import cdc_file
from cdc_jax.io.files import CDC_SUFFIX
from cdc_jax.runtime.free_memory import require_libraries

if TYPE_CHECKING:
    from cdc_jax.codec.verification import Verifier

_EPILOG = """\
Decodes the symbols of each file and encodes them again, checks the hash of the bundle's weights, and tests that the
machine's arithmetic is exact. Decodes no image. Prints the bundle's hash, and a line for each file that agrees.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc verify`."""
    parser.epilog = _EPILOG
    parser.add_argument("inputs", metavar="FILE", nargs="*", help=".cdc files, folders of them, or -")
    arguments.add_model(parser)
    arguments.add_max_memory(parser, "refuse files of images")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line and file, also on failure")


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Verifies all files and returns the exit code."""
    models = Models(args, _load_verifier)
    failures, reported_models = [], set()
    files, problems = list_files(args.inputs, CDC_SUFFIX)
    for problem in problems:
        console.log(problem)
        failures.append(CdcError.exit_code)
    for path in files:
        try:
            facts = _verify(args, models, path)
        except BundleError:
            raise  # this concerns all files
        except (CdcError, OSError, MemoryError) as error:
            line = console.describe(error, console.shown(path))
            console.log(line)
            if args.json:
                console.print_line(json.dumps({"file": path, "agrees": False, "problem": line}))
            failures.append(error.exit_code if isinstance(error, CdcError) else CdcError.exit_code)
            continue
        if args.json:
            console.print_line(json.dumps(facts))
            continue
        if facts["weights_sha256"] not in reported_models:
            reported_models.add(facts["weights_sha256"])
            console.print_line("model {fingerprint}: its weights are intact, SHA-256 {weights_sha256}".format(**facts))
        console.print_line(
            "{file}: agrees with the model {fingerprint} on this machine: {width}x{height} pixels, {bytes} bytes, "
            "{symbols} symbols, format {format_version}".format(**facts)
        )
    return console.exit_code_of(failures)


def _verify(args: argparse.Namespace, models: Models, path: str) -> dict:
    """The content of the JSON output for a file that agrees. Raises CdcError or OSError for a file that does not."""
    data = paths.read_source(path, magic=cdc_file.MAGIC)
    header = cdc_file.unpack(data, max_pixels=args.max_pixels)
    verifier = models.for_file(header.fingerprint, path)
    if args.max_memory is not None:
        _check_memory(args.max_memory, header, verifier)
    verified = verifier.verify(data)
    return {
        "file": path,
        "agrees": True,
        "width": header.width,
        "height": header.height,
        "bytes": len(data),
        "format_version": header.version,
        "fingerprint": header.fingerprint.hex(),
        "symbols": verified.num_symbols,
        "weights_sha256": verifier.weights_sha256,
    }


def _check_memory(max_bytes: int, header: cdc_file.Container, verifier: Verifier) -> None:
    """Raises ConfigError if reading the file's symbols is estimated to take more memory."""
    from cdc_jax.codec import memory
    from cdc_jax.codec.file_reader import padded_size

    height, width = padded_size(header)
    memory.check_limit(max_bytes, height, width, memory.reading_bytes(height, width, verifier.config))


def _load_verifier(path: str, max_pixels: int) -> Verifier:
    require_libraries()
    from cdc_jax.codec.verification import load_verifier

    return load_verifier(path, max_pixels=max_pixels)
